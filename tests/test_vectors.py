"""Every reference vector through the binary, by `tahini transform`; what compares an entity with its version
before (`is-changed`) through a dataset and two runs.

Needs the environment variable TAHINI: the path of a built node.
"""

import collections
import concurrent.futures
import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VECTORS = ROOT / "crates/dtl/tests/vectors"
DECISIONS = (ROOT / "docs/guide/dtl-decisions.md").read_text("utf-8")
TAHINI = os.environ["TAHINI"]
RESERVED = ("_updated", "_hash", "_previous", "_ts")


def read(name):
    return [json.loads(line) for line in (VECTORS / name).read_text("utf-8").splitlines()]


def same(expected, found, compare):
    """`exact` keeps integers, floats and booleans apart; `numeric` and `approx` do not."""
    if isinstance(expected, dict) and "__match__" in expected:
        return isinstance(found, str) and re.search(expected["__match__"], found) is not None
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(same(expected[name], found[name], compare) for name in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(same(*pair, compare) for pair in zip(expected, found))
    numbers = all(type(value) in (int, float) or isinstance(value, str) and value.startswith("~f") for value in (expected, found))
    if numbers and compare != "exact":
        a, b = (float(str(value).removeprefix("~f")) for value in (expected, found))
        return abs(a - b) < 1e-6 if compare == "approx" else a == b
    return type(expected) is type(found) and expected == found


def emitted(expected, found, vector):
    """Whether these entities are the expected ones, in order unless the vector leaves it open."""
    left = list(found)
    for entity in expected:
        fitting = [at for at, one in enumerate(left) if same(entity, one, vector.get("compare", "exact"))]
        if not fitting or (fitting[0] > 0 and not vector.get("unordered")):
            return False
        left.pop(fitting[0])
    return not left


def plain(entity, keep):
    """Without what a dataset adds, unless the vector expects it."""
    if isinstance(entity, list):
        return [plain(one, keep) for one in entity]
    if not isinstance(entity, dict):
        return entity
    return {name: plain(value, keep) for name, value in entity.items() if name in keep or not (name in RESERVED or name == "_deleted" and value is False)}


def pipe(vector):
    """A whole pipe around the vector's rules."""
    said = vector.get("pipe", {})
    config = {"_id": said.get("id", "pipe"), "type": "pipe", "source": {"type": "embedded", "entities": []}}
    config |= {name: said[name] for name in ("namespaced_identifiers", "namespaces", "add_namespaces", "remove_namespaces") if name in said}
    config["transform"] = {"type": "dtl", **vector.get("transform", {}), "rules": vector["rules"]}
    return config


def transform(vector, folder):
    """What is wrong with what the binary makes of the vector; None when nothing is."""
    folder = Path(folder)
    file = folder / "pipes/pipe.conf.json"
    file.parent.mkdir()
    file.write_text(json.dumps(pipe(vector)), "utf-8")
    command = [TAHINI, "transform", str(file)]
    if "secrets" in vector:
        (folder / "secrets.json").write_text(json.dumps(vector["secrets"]))
        command += ["--secrets", str(folder / "secrets.json")]
    for name, entities in vector.get("datasets", {}).items():
        (folder / f"{name}.json").write_text(json.dumps(entities), "utf-8")
        command += ["--dataset", f"{name}={folder / name}.json"]
    mappings = vector.get("pipe", {}).get("namespace_mappings")
    if mappings:
        (folder / "node-metadata.conf.json").write_text(json.dumps({"_id": "node", "type": "metadata", "namespaces": {"default": mappings}}))
    done = subprocess.run(command, input=json.dumps(vector["entity"]) + "\n", capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        return None if vector["error"] or vector.get("alt_error") else done.stderr
    if vector["error"]:
        return f"expected an error, found {done.stdout}"
    return compared(vector, [json.loads(line) for line in done.stdout.splitlines()])


def compared(vector, found):
    keep = set(re.findall(r'"(_[a-z]+)":', json.dumps(vector["expect"])))
    found = [plain(one, keep) for one in found]
    for expected in [vector["expect"], *vector.get("expect_alt", [])]:
        if emitted([plain(one, keep) for one in expected], found, vector):
            return None
    return f"expected {json.dumps(vector['expect'])}, found {json.dumps(found)}"


class Vectors(unittest.TestCase):
    def check(self, name):
        counts, wrong = collections.Counter(), []
        vectors = [vector for vector in read(name) if "previous" not in vector]
        fitting = [vector for vector in vectors if "requires" not in vector]
        with tempfile.TemporaryDirectory(prefix="tahini-vectors-") as folder, concurrent.futures.ThreadPoolExecutor(4) as pool:
            folders = [Path(folder) / str(at) for at in range(len(fitting))]
            for own in folders:
                own.mkdir()
            for vector, verdict in zip(fitting, pool.map(transform, fitting, folders), strict=True):
                counts[vector["confidence"]] += 1
                if verdict and not (vector["confidence"] == "low" and vector["id"] in DECISIONS):
                    wrong.append(f"{vector['id']}: {verdict}")
        left_out = [vector["id"] for vector in vectors if "requires" in vector]
        print(f"{name}: {dict(counts)}, {len(wrong)} wrong, left out for what they require: {left_out}")
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))
        return counts

    def test_the_language(self):
        self.assertGreaterEqual(self.check("dtl.jsonl").total(), 660)

    def test_joins(self):
        self.assertGreaterEqual(self.check("hops.jsonl").total(), 25)

    def test_changes(self):
        """A dataset gets the version before and then the vector's; a pipe after it sees the change.
        Both differ in `is`, at least: a dataset keeps no version that is like the one before."""
        vectors = [vector for vector in read("dtl.jsonl") if vector.get("previous")]
        self.assertGreaterEqual(len(vectors), 6)
        with tempfile.TemporaryDirectory(prefix="tahini-vectors-") as folder:
            for version in ("previous", "entity"):
                self.write_project(Path(folder), vectors, version)
                subprocess.run([TAHINI, "run", folder, "--data", f"{folder}/data"], check=True, capture_output=True)
            for vector in vectors:
                told = subprocess.run([TAHINI, "entities", f"out-{vector['id']}", "--data", f"{folder}/data"], check=True, capture_output=True, text=True).stdout
                self.assertIsNone(compared(vector, [json.loads(line) for line in told.splitlines()]), vector["id"])

    @staticmethod
    def write_project(folder, vectors, version):
        (folder / "pipes").mkdir(exist_ok=True)
        for vector in vectors:
            name = vector["id"]
            into = {"_id": f"in-{name}", "type": "pipe", "source": {"type": "embedded", "entities": [{**vector[version], "is": version}]}}
            out = {"_id": f"out-{name}", "type": "pipe", "source": {"type": "dataset", "dataset": f"in-{name}"}, "transform": {"type": "dtl", "rules": vector["rules"]}}
            for config in (into, out):
                (folder / f"pipes/{config['_id']}.conf.json").write_text(json.dumps(config), "utf-8")


if __name__ == "__main__":
    unittest.main()
