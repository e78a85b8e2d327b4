"""Every reference vector of the merge source through the binary, and what merging tells.

Needs the environment variable TAHINI: the path of a built node.
"""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from test_vectors import emitted, read

TAHINI = os.environ["TAHINI"]
# What a dataset adds.
ADDED = ("_updated", "_hash", "_previous", "_ts")


def project(folder, vector):
    """A project that fills the datasets, merges them, and shows what came of it."""
    (folder / "pipes").mkdir(parents=True)

    def put(config):
        (folder / f"pipes/{config['_id']}.conf.json").write_text(json.dumps({"type": "pipe", **config}), "utf-8")

    said = vector.get("pipe", {})
    for name, entities in vector["datasets"].items():
        put({"_id": name, "source": {"type": "embedded", "entities": entities}, "namespaced_identifiers": False})
    own = {name: value for name, value in said.items() if name != "id"}
    put({**own, "_id": said.get("id", "result"), "source": vector["source"]})
    return said.get("id", "result")


def plain(entity, ignored):
    added = [name for name in ADDED if name not in ignored]
    return {name: value for name, value in entity.items() if name not in (*ignored, *added) and not (name == "_deleted" and value is False)}


class Vectors(unittest.TestCase):
    def tahini(self, *arguments):
        done = subprocess.run([TAHINI, *arguments], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def found(self, vector, folder):
        pipe = project(folder, vector)
        data = ["--data", str(folder / "data")]
        done = subprocess.run([TAHINI, "run", str(folder), *data], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [plain(one, vector["ignore"]) for one in self.tahini("entities", pipe, *data)]

    def test_the_vectors(self):
        vectors = read("merge.jsonl")
        self.assertGreaterEqual(len(vectors), 15)
        wrong = []
        with tempfile.TemporaryDirectory(prefix="tahini-merge-") as folder:
            for vector in vectors:
                found = self.found(vector, Path(folder) / vector["id"])
                # A dataset writes no deletion of what it does not have; those are seen where merging is tested alone.
                choices = [[plain(one, vector["ignore"]) for one in expected if not one.get("_deleted")] for expected in (vector["expect"], *vector.get("expect_alt", []))]
                if not any(emitted(expected, found, vector) for expected in choices):
                    wrong.append(f"{vector['id']}: expected {choices[0]}, found {found}")
        self.assertEqual(wrong, [], "\n".join(wrong))


class Namespaces(unittest.TestCase):
    """What a merge makes of namespaces: those of ids and of properties, added and removed, expanded and collapsed."""

    def merged(self, source, pipes=(), hr=None, **golden):
        """The entities of every pipe after a run, by pipe: `hr`, `crm`, `golden` and the given ones."""
        entities = {
            "hr": hr or [{"_id": "1", "mail": "x", "boss": "~:crm:7"}, {"_id": "2", "uri": "~rhttp://crm.example/8"}],
            "crm": [{"_id": "7", "mail": "X"}, {"_id": "8"}, {"_id": "other:9", "mail": "z"}],
        }
        metadata = {"_id": "node", "type": "metadata", "namespaced_identifiers": True, "namespaces": {"default": {"crm": "http://crm.example/"}}}
        configs = [
            {"_id": "hr", "source": {"type": "embedded", "entities": entities["hr"]}, "namespaces": {"identity": "hr-id", "property": "hr"}},
            {"_id": "crm", "source": {"type": "embedded", "entities": entities["crm"]}},
            {"_id": "golden", "source": {"type": "merge", "version": 2, "datasets": ["hr h", "crm c"], **source}, **golden},
            *pipes,
        ]
        with tempfile.TemporaryDirectory(prefix="tahini-merge-") as folder:
            folder = Path(folder)
            (folder / "pipes").mkdir()
            (folder / "node-metadata.conf.json").write_text(json.dumps(metadata))
            for config in configs:
                (folder / f"pipes/{config['_id']}.conf.json").write_text(json.dumps({"type": "pipe", **config}))
            done = subprocess.run([TAHINI, "run", folder, "--data", folder / "data"], capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            return {config["_id"]: self.entities(config["_id"], folder) for config in configs}

    @staticmethod
    def entities(pipe, folder):
        told = subprocess.run([TAHINI, "entities", pipe, "--data", folder / "data"], check=True, capture_output=True, text=True).stdout
        found = [plain(json.loads(line), ()) for line in told.splitlines()]
        return {entity.pop("_id"): entity for entity in found}

    def test_names_without_a_namespace_match_in_any_and_ids_are_identifiers(self):
        by_mail = {"equality": [["eq", ["lower", "h.mail"], ["lower", "c.mail"]]], "identity": "first"}
        found = self.merged(by_mail)
        self.assertEqual(list(found["hr"]), ["hr-id:1", "hr-id:2"])
        self.assertEqual(found["golden"]["hr-id:1"], {"$ids": ["~:hr-id:1", "~:crm:7"], "hr:mail": "x", "hr:boss": "~:crm:7", "crm:mail": "X"})
        self.assertEqual(found["golden"]["other:9"], {"$ids": ["~:other:9"], "crm:mail": "z"})
        # The same with the names' namespaces written out, and with the pipe's own, which nobody has.
        written_out = {**by_mail, "equality": [["eq", "h.hr:mail", ["lower", "c.crm:mail"]]]}
        self.assertEqual(self.merged(written_out)["golden"], found["golden"])
        of_its_own = {**by_mail, "equality": [["eq", "h.:mail", ["lower", "c.crm:mail"]]]}
        self.assertNotIn("crm:mail", self.merged(of_its_own)["golden"]["hr-id:1"])
        self.assertEqual(self.merged(of_its_own, namespaces={"identity": "x", "property": "hr"})["golden"], found["golden"])

    def test_composite_ids_hold_those_with_namespaces(self):
        found = self.merged({"equality_sets": [["h.boss", "c.$ids"]]})
        self.assertEqual(set(found["golden"]), {"0|hr-id:1|1|crm:7", "0|hr-id:2", "1|crm:8", "1|other:9"})

    def test_uris_collapse_to_identifiers_and_join_them(self):
        found = self.merged({"equality": [["eq", ["ni", "h.uri"], "c.$ids"]], "identity": "first"})
        self.assertEqual(found["golden"]["hr-id:2"]["$ids"], ["~:hr-id:2", "~:crm:8"])
        # One that no prefix stands for becomes an identifier of the pipe, which is nobody's.
        other = [{"_id": "9", "uri": "~rhttp://elsewhere.example/8"}]
        golden = self.merged({"equality": [["eq", ["ni", "h.uri"], "c.$ids"]], "identity": "first"}, hr=other)["golden"]
        self.assertEqual(golden["hr-id:9"]["$ids"], ["~:hr-id:9"])

    def test_namespaces_are_removed_and_added_behind_a_merge(self):
        by_mail = {"equality": [["eq", "h.mail", ["lower", "c.mail"]]], "identity": "first"}
        out = {"_id": "out", "source": {"type": "dataset", "dataset": "golden"}, "remove_namespaces": True}
        found = self.merged(by_mail, [out])["out"]
        self.assertEqual(found["1"], {"$ids": ["~:1", "~:7"], "mail": "X", "boss": "~:7"})
        # Adding leaves alone what has one.
        found = self.merged(by_mail, add_namespaces=True)["golden"]
        self.assertIn("hr-id:1", found)
        found = self.merged(by_mail, namespaced_identifiers=False)["golden"]
        self.assertNotIn("crm:mail", found["hr-id:1"], "without them a name is the whole name")
        self.assertEqual(found["hr-id:1"]["$ids"], ["hr-id:1"])


class Symmetric(unittest.TestCase):
    def test_what_the_node_says_of_uris_reaches_rules_and_joins(self):
        """`symmetric_namespace_collapse`: a URI becomes an identifier that expands to it again; without it, one of the pipe."""
        declared = {"sesam": "http://sesam.io/people/", "sesam_male": "http://sesam.io/people/male/"}
        uris = ["~rhttp://sesam.io/people/male/john", "~rhttp://sesam.io/people/all", "~rhttp://example.com/path"]
        out = {"default": [["add", "_id", "_S._id"], ["add", "ni", ["ni", "_S.uris"]], ["add", "uris", ["ni-expand", "_T.ni"]]]}
        configs = [
            {"_id": "in", "source": {"type": "embedded", "entities": [{"_id": "1", "uris": uris}]}},
            {"_id": "out", "source": {"type": "dataset", "dataset": "in"}, "transform": {"type": "dtl", "rules": out}},
        ]
        for symmetric, last in ((True, "~:http://example.com/path"), (False, "~:out-1:path")):
            metadata = {"_id": "node", "type": "metadata", "namespaces": {"default": declared}, "global_defaults": {"symmetric_namespace_collapse": symmetric}}
            with tempfile.TemporaryDirectory(prefix="tahini-merge-") as folder:
                folder = Path(folder)
                (folder / "pipes").mkdir()
                (folder / "node-metadata.conf.json").write_text(json.dumps(metadata))
                for config in configs:
                    (folder / f"pipes/{config['_id']}.conf.json").write_text(json.dumps({"type": "pipe", **config}))
                done = subprocess.run([TAHINI, "run", folder, "--data", folder / "data"], capture_output=True, text=True, timeout=120)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertNotIn("symmetric", done.stdout + done.stderr)
                found = Namespaces.entities("out", folder)["1"]
                self.assertEqual(found["ni"], ["~:sesam_male:john", "~:sesam:all", last])
                back = [uri.removeprefix("~r") for uri in uris[:2]] + [last.removeprefix("~:")]
                self.assertEqual(found["uris"], back)


class Loop(unittest.TestCase):
    def test_a_flow_that_feeds_itself_is_named(self):
        """What is merged goes on, is changed, and is merged again: without end."""
        source = {"type": "merge", "version": 2, "datasets": ["seed s", "onward o"], "equality_sets": [["s.k", "o.k"]], "identity": "first", "strategy": "compact"}
        onward = {"default": [["add", "_id", "on"], ["add", "k", "_S.k"], ["add", "n", ["plus", 1, ["max", ["coalesce", ["list", "_S.n", 0]]]]]]}
        configs = [
            {"_id": "seed", "source": {"type": "embedded", "entities": [{"_id": "a", "k": 1, "n": 0}]}},
            {"_id": "golden", "source": source},
            {"_id": "onward", "source": {"type": "dataset", "dataset": "golden"}, "transform": {"type": "dtl", "rules": onward}},
        ]
        with tempfile.TemporaryDirectory(prefix="tahini-merge-") as folder:
            folder = Path(folder)
            (folder / "pipes").mkdir()
            for config in configs:
                (folder / f"pipes/{config['_id']}.conf.json").write_text(json.dumps({"type": "pipe", **config}))
            done = subprocess.run([TAHINI, "run", folder, "--data", folder / "data", "--max-passes", "8"], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        told = done.stdout + done.stderr
        self.assertIn("not at rest", told)
        for pipe in ("golden", "onward"):
            self.assertRegex(told.split("not at rest")[1], pipe)


if __name__ == "__main__":
    unittest.main()
