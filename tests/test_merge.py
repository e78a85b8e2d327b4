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
        done = subprocess.run([TAHINI, *arguments], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def found(self, vector, folder):
        pipe = project(folder, vector)
        data = ["--data", str(folder / "data")]
        done = subprocess.run([TAHINI, "run", str(folder), *data], capture_output=True, text=True, timeout=60)
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


if __name__ == "__main__":
    unittest.main()
