"""Connectors through the binary: expanding, judging, logging in, and loading very many of them.

Needs the environment variable TAHINI, the path of a built node.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

from nodes import Node

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo/standins"))

from sales import CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN, Sales  # noqa: E402  (the stand-ins are on the path only now)

TAHINI = Path(os.environ["TAHINI"]).absolute()
CRM = ROOT / "examples/crm"
SEED = 7
# As many as a busy hub has.
CONNECTORS, DATATYPES = 60, 12


def tahini(*words, code=0, **environment):
    command = [str(TAHINI), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})
    if done.returncode != code:
        raise AssertionError(f"{words}: ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def read(folder):
    """The components of an expanded connector, by id."""
    files = [*folder.glob("pipes/*.conf.json"), *folder.glob("systems/*.conf.json")]
    return {file.name: json.loads(file.read_text("utf-8")) for file in files}


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tahini-connectors-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)


class Expanded(Case):
    def test_the_example_is_what_its_connector_expands_to(self):
        """Its files were expanded by the reference's own client."""
        into = self.folder / "expanded"
        tahini("connector", "expand", CRM / "connector", "--system", "sales", "-e", into)
        for name in sorted(path.name for path in into.glob("*/*.conf.json")):
            if name == "sales-contact-transform.conf.json":
                continue  # The project has one of its own.
            part = "pipes" if (into / "pipes" / name).exists() else "systems"
            self.assertEqual((into / part / name).read_bytes(), (CRM / part / name).read_bytes(), name)
        self.assertTrue((into / "pipes/sales-contact-transform.conf.json").exists())
        self.assertEqual(json.loads((into / "test-env.json").read_text())["token_url"], "http://127.0.0.1:9256/oauth/token")

    def test_what_is_expanded_before_is_replaced_and_nothing_else_is(self):
        into = self.folder / "expanded"
        expand = ("connector", "expand", CRM / "connector", "-e", into)
        tahini(*expand)
        (into / "pipes/old.conf.json").write_text("{}")
        tahini(*expand)
        self.assertFalse((into / "pipes/old.conf.json").exists())
        other = self.folder / "other"
        other.mkdir()
        (other / "letter.txt").write_text("dear")
        said = tahini("connector", "expand", CRM / "connector", "-e", other, code=1)
        self.assertIn("letter.txt", said.stderr)
        self.assertEqual((other / "letter.txt").read_text(), "dear")


class Begun(Case):
    def test_what_init_writes_is_valid_and_expands(self):
        for auth in ("oauth2", "api_key", "jwt"):
            place = self.folder / f"{auth}-connector"
            tahini("connector", "init", place, "--auth", auth, "--datatype", "contact", "--share")
            tahini("connector", "init", place, "--datatype", "company")
            said = json.loads(tahini("connector", "validate", place, "--json").stdout)
            self.assertEqual((said["errors"], said["warnings"]), (0, 0), said)
            tahini("connector", "expand", place, "--system", "crm")
            parts = read(place / ".expanded")
            self.assertIn("crm-contact-share.conf.json", parts)
            self.assertIn("crm-company-collect.conf.json", parts)
            self.assertNotIn("crm-company-share.conf.json", parts)
            self.assertIn("company-list", parts["crm.conf.json"]["operations"])

    def test_a_data_type_is_not_written_twice(self):
        place = self.folder / "a-connector"
        tahini("connector", "init", place, "--datatype", "contact")
        before = (place / "templates/contact.json").read_bytes()
        said = tahini("connector", "init", place, "--datatype", "contact", "--share", code=1)
        self.assertIn("templates/contact.json", said.stderr)
        self.assertEqual((place / "templates/contact.json").read_bytes(), before)


class Judged(Case):
    def problems(self, change):
        """What is said of the example's connector after a change."""
        place = self.folder / "connector"
        (place / "templates").mkdir(parents=True)
        parts = {}
        for name in ("manifest.json", "test-env.json", "templates/system.json", "templates/contact.json"):
            parts[name] = json.loads((CRM / "connector" / name).read_text("utf-8"))
        change(parts)
        for name, part in parts.items():
            (place / name).write_text(json.dumps(part))
        done = subprocess.run([str(TAHINI), "connector", "validate", str(place), "--json"], capture_output=True, text=True, timeout=60)
        return done.returncode, json.loads(done.stdout)["problems"]

    def pipe(self, parts, part):
        return next(pipe for pipe in parts["templates/contact.json"] if pipe["_id"].endswith(f"-{part}"))

    def test_the_example_is_as_it_should_be(self):
        self.assertEqual(self.problems(lambda parts: None), (0, []))

    def test_every_broken_promise_is_told(self):
        def many(parts):
            self.pipe(parts, "share")["batch_size"] = 100

        def blind(parts):
            self.pipe(parts, "collect")["exclude_completeness"] = []

        def lost(parts):
            self.pipe(parts, "collect")["transform"] = []

        def hidden(parts):
            self.pipe(parts, "share")["sink"]["dataset"] = "elsewhere"

        def nowhere(parts):
            del self.pipe(parts, "share")["transform"]["properties"]["share_dataset"]

        for change, words in {many: "batch_size", blind: "exclude_completeness", lost: "transform-collect-rest", hidden: "named like the pipe", nowhere: '"share_dataset" is missing'}.items():
            with self.subTest(change.__name__):
                self.setUp()
                code, problems = self.problems(change)
                # Without its dataset a template cannot be unfolded; with the others broken the connector runs.
                self.assertEqual(code, 3 if change is nowhere else 0)
                self.assertTrue(any(words in json.dumps(problem).replace('\\"', '"') for problem in problems), problems)


class LoggedIn(Case):
    def test_a_login_gives_the_secrets_and_variables(self):
        standin = Sales()
        server = standin.serve(port=0)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        place = self.folder / "connector"
        (place / "templates").mkdir(parents=True)
        for name in ("manifest.json", "test-env.json", "templates/system.json", "templates/contact.json"):
            text = (CRM / "connector" / name).read_text("utf-8")
            (place / name).write_text(text.replace("http://127.0.0.1:9256", server.url))
        (place / ".authconfig").write_text(f'client_id = "{CLIENT_ID}"\nclient_secret = {CLIENT_SECRET}\n')
        secrets = self.folder / "secrets.json"
        command = [str(TAHINI), "connector", "authenticate", str(place), "--system", "sales", "--into", str(secrets), "--port", "0", "--timeout", "30"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        link = process.stdout.readline().strip()
        self.assertTrue(link.startswith(f"{server.url}/oauth/authorize?client_id={CLIENT_ID}&scope=contacts.read+contacts.write+webhooks&"), link)
        # A browser follows the service's redirect.
        with urllib.request.urlopen(link, timeout=30) as answer:
            self.assertIn("Done", answer.read().decode())
        self.assertEqual(process.wait(30), 0, process.stderr.read())
        kept = json.loads(secrets.read_text())["sales"]
        self.assertEqual(kept["oauth_refresh_token"], REFRESH_TOKEN)
        self.assertEqual((kept["oauth_client_id"], kept["oauth_client_secret"]), (CLIENT_ID, CLIENT_SECRET))
        self.assertEqual(kept["oauth_access_token"], "demo-sales-token-0001")
        self.assertEqual(len(kept["webhook_secret"]), 32)
        self.assertEqual(oct(secrets.stat().st_mode)[-3:], "600")
        variables = json.loads((place / "test-env.json").read_text())
        self.assertEqual((variables["token_url"], variables["base_url"]), (f"{server.url}/oauth/token", server.url))
        self.assertNotIn(CLIENT_SECRET, place.joinpath("test-env.json").read_text())

    def test_what_is_missing_is_named(self):
        said = tahini("connector", "authenticate", CRM / "connector", "--into", self.folder / "s.json", code=1)
        self.assertIn("client_id", said.stderr)
        self.assertIn("TAHINI_SECRET_CLIENT_ID", said.stderr)
        said = tahini("connector", "authenticate", CRM / "connector", code=1)
        self.assertIn("--into", said.stderr)


def datatype(rng):
    """The pipes of a data type, out of what public connectors are made of."""
    name, operation = "{{@ system @}}-{{@ datatype @}}-", "{{@ datatype @}}-"
    key = rng.choice(["id", "Id", "_S.id", ["id", "kind"]])
    collect = {"rest_system": "{{@ system @}}", "primary_key": key, "share_dataset": name + "share"}
    lookup = rng.choice([{}, {"operation_lookup_delete": operation + "lookup"}, {"operation_lookup": operation + "lookup", "original_property": "original"}])
    share = {"rest_system": "{{@ system @}}", "primary_key": key, "share_dataset": name + "share"}
    share |= {f"operation_{what}": operation + what for what in ("lookup", "insert", "update", "delete")}
    if rng.random() < 0.3:
        share["client_side_patching"] = True
    if rng.random() < 0.3:
        share["rules"] = {"lookup_rewrite": [["filter", ["eq", "_R._S.id", "_S.id"]], ["copy", "*"]]}
    if rng.random() < 0.3:
        share["rewrite_rules_payload"] = {
            "own": [["copy", "*", ["list", "_*", "$*"]]],
            "rewrite_insert_payload": [["add", "$payload", ["apply", "own", "_S."]]],
            "rewrite_update_payload": [["add", "$payload", ["list", ["apply", "own", "_S.$source"]]]],
        }
    pipes = [
        {"_id": name + "all", "source": {"type": "rest", "system": "{{@ system @}}", "operation": operation + "list", "supports_since": rng.random() < 0.5}},
        {
            "_id": name + "collect", "exclude_completeness": [name + "share"], "source": {"type": "dataset", "dataset": name + "all"},
            "transform": [
                {"type": "template", "template": "transform-collect-rest", "properties": {**collect, **lookup}},
                {"type": "dtl", "rules": {"default": [["copy", "*"], ["add", "$last-modified", ["datetime-parse", "%Y-%m-%dT%H:%M:%SZ", "_S.updated"]]]}},
            ],
        },
        {
            "_id": name + "share", "batch_size": 1, "source": {"type": "dataset", "dataset": name + "transform"},
            "sink": {"deletion_tracking": False, "set_initial_offset": "onload"},
            "transform": {"type": "template", "template": "transform-share-rest", "properties": share},
        },
    ]
    if rng.random() < 0.4:
        pipes.append({"_id": name + "event", "source": {"type": "http_endpoint", "system": "{{@ system @}}", "validation_expression": "{% if request_headers['X'] == secret('webhook_secret') %}{% else %}no{% endif %}"}})
    if rng.random() < 0.2:
        pipes[2]["transform"] = [{"type": "template", "template": "transform-defaults-rest", "properties": {"rest_system": "{{@ system @}}", "primary_key": key}}, pipes[2]["transform"]]
    return [{"type": "pipe", "namespaced_identifiers": False, **pipe} for pipe in pipes]


def connector(rng, place):
    """A connector with many data types, some of which share a template."""
    (place / "templates").mkdir(parents=True)
    operations, datatypes = {}, {}
    masters = [f"type{at}" for at in range(DATATYPES * 2 // 3)]
    for at in range(DATATYPES):
        name = f"type{at}"
        master = name if name in masters else rng.choice(masters)
        datatypes[name] = {"template": f"templates/{master}.json", "parameters": {"size": 25, "fast": at % 2 == 0}}
        paging = rng.choice([
            {"next_page_link": "{% if headers.link.next is defined %}{{ headers.link.next }}{% endif %}"},
            {"next_page_link": "{{ url }}", "params": {"page": "{{ page + 1 }}"}, "page_size": 25, "next_page_termination_strategy": ["not-full-page"]},
            {"next_page_link": "{{ body.paging.next.link }}", "next_page_termination_strategy": ["next-page-link-empty", "same-response"]},
        ])
        operations[f"{name}-list"] = {"method": "GET", "url": name, "id_expression": "{{ id }}", "updated_expression": "{{ updated }}", **paging}
        for what, method in {"lookup": "GET", "insert": "POST", "update": "PUT", "delete": "DELETE"}.items():
            operations[f"{name}-{what}"] = {"method": method, "url": name + "/{{ entity.id }}" if what != "insert" else name}
    operations["defaults"] = {"method": "GET", "url": "defaults"}
    auth = rng.choice([
        {"oauth2": {"client_id": "$SECRET(a)", "client_secret": "$SECRET(b)", "refresh_token": "$SECRET(c)", "token_url": "{{@ token_url @}}"}},
        {"headers": {"Authorization": "Bearer $SECRET(api_key)"}},
        {"authentication": "basic", "username": "u", "password": "$SECRET(p)"},
    ])
    system = {"_id": "{{@ system @}}", "type": "system:rest", "url_pattern": "{{@ base_url @}}/%s", "operations": operations, **auth}
    for master in masters:
        (place / f"templates/{master}.json").write_text(json.dumps(datatype(rng)))
    (place / "templates/system.json").write_text(json.dumps(system))
    manifest = {"auth": "oauth2", "additional_parameters": {"base_url": {}, "token_url": {}}, "use_webhook_secret": rng.random() < 0.5, "system-template": "templates/system.json", "datatypes": datatypes}
    (place / "manifest.json").write_text(json.dumps(manifest))
    (place / "test-env.json").write_text(json.dumps({"base_url": "http://127.0.0.1:1", "token_url": "http://127.0.0.1:1/token"}))


class VeryMany(Case):
    def test_a_large_set_expands_validates_and_is_served(self):
        rng = random.Random(SEED)
        project = self.folder / "project"
        for part in ("pipes", "systems"):
            (project / part).mkdir(parents=True)
        for at in range(CONNECTORS):
            place = self.folder / f"c{at}"
            connector(rng, place)
            tahini("connector", "expand", place, "--system", f"s{at}")
            if at % 20 == 0:
                said = json.loads(tahini("connector", "validate", place, "--system", f"s{at}", "--json").stdout)
                self.assertEqual(said["errors"], 0, said)
            for name in ("pipes", "systems"):
                for file in (place / ".expanded" / name).iterdir():
                    file.rename(project / name / file.name)
        (project / "test-env.json").write_text((place / "test-env.json").read_text())
        pipes = len(list((project / "pipes").iterdir()))
        self.assertGreater(pipes, 4 * CONNECTORS * DATATYPES - 1)
        began = time.monotonic()
        said = tahini("validate", project)
        self.assertRegex(said.stdout, rf"{pipes} pipes, {CONNECTORS} systems: 0 errors, 0 warnings")
        judged = time.monotonic() - began
        # What is loaded can be served: none of it is refused, and templates are unfolded.
        node = Node(TAHINI, self.folder, arguments=["--no-schedule"])
        self.addCleanup(node.end)
        node.start(seconds=120)
        listed = node.json("/api/pipes", seconds=120)
        self.assertEqual(len(listed), pipes)
        share = next(pipe for pipe in listed if pipe["_id"] == "s0-type0-share")
        self.assertNotIn('"template"', json.dumps(share["config"]["effective"]["transform"]))
        print(f"{pipes} pipes of {CONNECTORS} connectors judged in {judged:.1f} s")


if __name__ == "__main__":
    unittest.main()
