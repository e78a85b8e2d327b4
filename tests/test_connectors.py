"""Connectors through the binary: expanding, judging, logging in, and loading very many of them.

Needs the environment variable TAHINI, the path of a built node.
"""

import base64
import hashlib
import http.server
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse
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
        done = subprocess.run([str(TAHINI), "connector", "validate", str(place), "--json"], capture_output=True, text=True, timeout=120)
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
        command = [str(TAHINI), "connector", "authenticate", str(place), "--system", "sales", "--into", str(secrets), "--port", "0", "--timeout", "120"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        link = process.stdout.readline().strip()
        self.assertTrue(link.startswith(f"{server.url}/oauth/authorize?client_id={CLIENT_ID}&scope=contacts.read+contacts.write+webhooks&"), link)
        # A browser follows the service's redirect.
        with urllib.request.urlopen(link, timeout=120) as answer:
            self.assertIn("Done", answer.read().decode())
        self.assertEqual(process.wait(120), 0, process.stderr.read())
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


def prime(rng, bits):
    """A number that is prime as far as forty rounds of Miller and Rabin tell."""
    while True:
        number = rng.getrandbits(bits) | 3 << (bits - 2) | 1
        odd, twos = number - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1

        def witnesses(base):
            power = pow(base, odd, number)
            return power not in (1, number - 1) and all(pow(power, 2**at, number) != number - 1 for at in range(1, twos))

        if not any(number % small == 0 for small in (3, 5, 7, 11, 13, 17, 19, 23)) and not any(witnesses(rng.randrange(2, number - 1)) for _ in range(40)):
            return number


def encoded(number):
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


class Key:
    """An RSA key that signs and verifies SHA-256 hashes (RFC 8017)."""

    def __init__(self, rng):
        self.p, self.q, self.e = prime(rng, 1024), prime(rng, 1024), 65537
        self.n, self.d = self.p * self.q, pow(self.e, -1, (self.p - 1) * (self.q - 1))

    def padded(self, message):
        tail = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(message).digest()
        return int.from_bytes(b"\0\1" + b"\xff" * (256 - 3 - len(tail)) + b"\0" + tail, "big")

    def token(self, claims):
        part = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")  # noqa: E731
        text = part(json.dumps({"alg": "RS256", "typ": "JWT"}).encode()) + b"." + part(json.dumps(claims).encode())
        return (text + b"." + part(pow(self.padded(text), self.d, self.n).to_bytes(256, "big"))).decode()

    def has_signed(self, message, signature):
        return pow(int.from_bytes(signature, "big"), self.e, self.n) == self.padded(message)

    def xml(self):
        names = {"Modulus": self.n, "Exponent": self.e, "P": self.p, "Q": self.q, "DP": self.d % (self.p - 1), "DQ": self.d % (self.q - 1), "InverseQ": pow(self.q, -1, self.p), "D": self.d}
        return "<RSAKeyValue>" + "".join(f"<{name}>{base64.b64encode(encoded(number)).decode()}</{name}>" for name, number in names.items()) + "</RSAKeyValue>"


CLAIM = "http://schemes.superoffice.net/identity/"


class Office(http.server.BaseHTTPRequestHandler):
    """A stand-in of the servers that give out SuperOffice's tickets."""

    theirs, application = Key(random.Random(SEED)), Key(random.Random(SEED + 1))

    def log_message(self, *_):
        pass

    def answer(self, body):
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        if self.path == "/jwks":
            part = lambda number: base64.urlsafe_b64encode(encoded(number)).rstrip(b"=").decode()  # noqa: E731
            self.answer({"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "n": part(self.theirs.n), "e": part(self.theirs.e)}]})
        elif self.path == "/api/state/Cust41398":
            self.answer({"Api": f"http://{self.headers['Host']}/Cust41398/api"})
        else:
            self.send_error(404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/token":
            self.answer({"access_token": "8A:Cust41398.of-the-login", "refresh_token": "again", "id_token": self.theirs.token({f"{CLAIM}system_token": "user-7"})})
            return
        asked = json.loads(body)
        message, signature = asked["SignedSystemToken"].rsplit(".", 1)
        signed = self.application.has_signed(message.encode(), base64.b64decode(signature))
        if not signed or not re.fullmatch(r"user-7\.[0-9]{12}", message) or (asked["ApplicationToken"], asked["ContextIdentifier"]) != ("of-the-application", "Cust41398"):
            self.answer({"IsSuccessful": False, "ErrorMessage": "the signature is wrong"})
            return
        self.answer({"IsSuccessful": True, "Token": self.theirs.token({f"{CLAIM}ticket": "7T:the-ticket", f"{CLAIM}ctx": "Cust41398"})})


class Ticketed(Case):
    def logs_in(self, key):
        """The process after somebody logged in, the secrets and the variables."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Office)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        place = self.folder / "connector"
        tahini("connector", "init", place, "--auth", "oauth2", "--datatype", "contact")
        manifest = json.loads((place / "manifest.json").read_text())
        manifest["auth_variant"] = "superoffice-ticket"
        manifest["oauth2"] = {"login_url": f"{self.url}/login", "token_url": f"{self.url}/token", "scopes": ["openid"], "jwks_uri": f"{self.url}/jwks"}
        (place / "manifest.json").write_text(json.dumps(manifest))
        (place / ".authconfig").write_text(f'client_id = "c"\nclient_secret = "of-the-application"\nrsa_private_key = "{key.xml()}"\n')
        secrets = self.folder / "secrets.json"
        command = [str(TAHINI), "connector", "authenticate", str(place), "--system", "so", "--into", str(secrets), "--port", "0", "--timeout", "120"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(process.stdout.readline().strip()).query))
        back = urllib.parse.urlencode({"code": "42", "state": query["state"]})
        with urllib.request.urlopen(f"{query['redirect_uri']}?{back}", timeout=120) as answer:
            answer.read()
        process.wait(120)
        return process, secrets, place / "test-env.json"

    def test_a_login_at_superoffice_gives_a_ticket(self):
        process, secrets, variables = self.logs_in(Office.application)
        self.assertEqual(process.returncode, 0, process.stderr.read())
        kept = json.loads(secrets.read_text())["so"]
        self.assertEqual((kept["so_ticket"], kept["oauth_client_secret"]), ("7T:the-ticket", "of-the-application"))
        told = json.loads(variables.read_text())
        self.assertEqual((told["account_id"], told["base_url"]), ("Cust41398", self.url))

    def test_a_key_that_is_not_the_applications_gets_none(self):
        process, secrets, _ = self.logs_in(Office.theirs)
        self.assertEqual(process.returncode, 1)
        said = process.stderr.read()
        self.assertIn("the signature is wrong", said)
        self.assertNotIn("of-the-application", said)
        self.assertFalse(secrets.exists())


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
