#!/usr/bin/env python3
"""The printed JSON Schemas, held against what they describe by a validator of its own: they take
the example projects and the documentation's rules, and refuse what is misspelt."""

import copy
import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parents[1]
TAHINI = os.environ.get("TAHINI", ROOT / "target/release/tahini")

PIPE = {
    "_id": "p",
    "type": "pipe",
    "source": {"type": "dataset", "dataset": "d"},
    "transform": [{"type": "dtl", "rules": {"default": [["copy", "*"], ["add", "n", ["upper", "_S.name"]]]}}],
    "sink": {"type": "dataset", "dataset": "p"},
    "pump": {"schedule_interval": 30},
    "batch_size": 10,
}
# Values of every kind, as an argument.
LITERALS = [None, True, 1.5, -1, "a", "1.5", "~f1.5", {"a": 1}, ["upper", "a"], "_S.a", "$ENV(x)", []]


def validator(subject):
    text = subprocess.run([TAHINI, "schema", subject], check=True, capture_output=True, text=True).stdout
    schema = json.loads(text)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def changed(path, value):
    """PIPE with another value at a path; None takes it away."""
    pipe = copy.deepcopy(PIPE)
    *way, last = path
    place = pipe
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return pipe


class Schemas(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.all, cls.pipe, cls.rules = validator("all"), validator("pipe"), validator("rules")
        cls.system = validator("system")

    def takes(self, schema, document, name=""):
        errors = [f"{error.json_path}: {error.message[:300]}" for error in schema.iter_errors(document)]
        self.assertEqual(errors, [], name)

    def refuses(self, schema, document, name):
        self.assertFalse(schema.is_valid(document), f"expected a refusal: {name}")

    def test_example_projects_are_taken(self):
        count = 0
        for file in sorted((ROOT / "examples").glob("**/*.conf.json")):
            self.takes(self.all, json.loads(file.read_text()), str(file))
            count += 1
        self.assertGreaterEqual(count, 18)

    def test_documented_rules_are_taken(self):
        taken = 0
        for name in ("dtl", "hops"):
            for line in (ROOT / f"crates/dtl/tests/vectors/{name}.jsonl").read_text().splitlines():
                vector = json.loads(line)
                if vector.get("error") or vector.get("alt_error"):
                    continue
                self.takes(self.rules, vector["rules"], vector["id"])
                taken += 1
        self.assertGreater(taken, 600)

    def test_rules_of_the_specification_are_taken(self):
        taken = 0
        for file in sorted((ROOT / "crates/dtl/tests/spec").glob("*.json")):
            for case in json.loads(file.read_text()):
                if "error" in case:
                    continue
                rules = dict(case.get("beside", {}))
                if "expression" in case:
                    rules["default"] = [["add", "r", case["expression"]]]
                elif isinstance(case["rules"], list):
                    rules["default"] = case["rules"]
                else:
                    rules = case["rules"]
                self.takes(self.rules, rules, f"{file.name}: {case['name']}")
                taken += 1
        self.assertGreater(taken, 1000)

    def test_rules_are_taken_and_refused_as_the_compiler_does(self):
        """Each argument of a printed example of each function becomes values of every kind, and there are more and fewer of
        them. What the compiler takes the schema takes; what it refuses is refused, too, but for what only the
        compiler can know."""
        told = subprocess.run([TAHINI, "explain", "--json"], check=True, capture_output=True, text=True).stdout
        calls = {}
        for row in json.loads(told):
            shown = (example["call"] for example in row["examples"])
            for call in [call for call in shown if isinstance(call, list) and call[0] == row["name"]][:1]:
                changed = [[*call[:at], value, *call[at + 1 :]] for at in range(1, len(call)) for value in LITERALS]
                changed += [[*call, 1, 1][: 1 + count] for count in range(len(call) + 2)]
                calls |= {f"c{len(calls) + at}": ([one] if row["is_transform"] else [["add", "r", one]]) for at, one in enumerate(changed)}
        self.assertGreater(len(calls), 3000)
        wrong = set()
        names = list(calls)
        with tempfile.TemporaryDirectory(prefix="tahini-schema-") as folder:
            file, env = Path(folder) / "rules.json", Path(folder) / "env.json"
            env.write_text(json.dumps({"x": "y"}))
            # A compilation tells a thousand problems at most.
            for first in range(0, len(names), 500):
                some = {name: calls[name] for name in names[first : first + 500]}
                # A name that examples apply.
                file.write_text(json.dumps({"default": [], "line": [], **some}), "utf-8")
                told = subprocess.run([TAHINI, "transform", file, "--env", env], input="", capture_output=True, text=True).stderr
                wrong |= set(re.findall(r": error: .* \(\$\.(c[0-9]+)\b", told))
        self.assertGreater(len(wrong), 900)
        refused = {name for name, rules in calls.items() if not self.rules.is_valid({"default": rules})}
        self.assertEqual([calls[name] for name in sorted(refused - wrong)], [], "refused by the schema alone")
        missed = [calls[name] for name in sorted(wrong - refused)]
        # Names of rules, zones, formats, regions; what a variable holds; text that is a date.
        print(f"{len(calls)} calls, {len(wrong)} wrong, {len(missed)} of them known to the compiler alone")
        self.assertLess(len(missed), 120)

    def test_rules_are_taken_with_variables_of_the_environment(self):
        for rules in (
            "$ENV(rules)",
            {"default": "$ENV(rules)"},
            {"default": [["if", "$ENV(on)", "$ENV(then)"], ["add", "r", ["range", "$ENV(from)", 3]]]},
            {"default": [["add", "r", ["hops", {"datasets": "$ENV(d)", "where": "$ENV(w)", "recurse": "$ENV(r)", "max_depth": "$ENV(m)"}]]]},
        ):
            self.takes(self.rules, rules, str(rules))
        for rules in ("rules", {"default": "copy"}, {"default": [["if", True, "copy"]]}, {"default": [["add", None, 1]]}, {"default": [["add", "r", ["nth", "first", "_S.a"]]]}):
            self.refuses(self.rules, rules, str(rules))

    def test_a_pipe_is_taken_with_variables_conditions_and_remarks(self):
        self.takes(self.pipe, PIPE)
        self.takes(self.all, [PIPE, {"_id": "s", "type": "system:url", "url_pattern": "http://x/%s"}])
        self.takes(self.pipe, changed(["batch_size"], "$ENV(size)"))
        self.takes(self.pipe, changed(["sink"], {"deletion_tracking": True}))
        self.takes(self.pipe, changed(["comment"], ["why"]))
        alternatives = {"prod": {"type": "dataset", "dataset": "d"}, "test": {"type": "embedded", "entities": []}}
        source = {"type": "conditional", "condition": "$ENV(node)", "alternatives": alternatives}
        self.takes(self.pipe, changed(["source"], source))

    def test_what_is_misspelt_or_wrong_is_refused(self):
        for path, value in [
            (["type"], "pipes"),
            (["_id"], None),
            (["_id"], 5),
            (["sorce"], {}),
            (["batch_size"], "ten"),
            (["batch_size"], 0),
            (["source", "type"], "datset"),
            (["source", "type"], None),
            (["source", "datset"], "d"),
            (["source", "dataset"], 5),
            (["pump", "schedule_intervall"], 30),
            (["sink", "type"], "dataste"),
            (["transform", 0, "type"], "dlt"),
            (["transform", 0, "rules"], []),
            (["transform", 0, "rules", "default"], 5),
            (["transform", 0, "rules", "default", 0, 0], "cpoy"),
            (["transform", 0, "rules", "default", 1, 2, 0], "uper"),
            (["transform", 0, "rules", "default", 1, 2], ["upper"]),
            (["transform", 0, "rules", "default", 1, 2], ["upper", 1, 2]),
            (["transform", 0, "rules", "default", 1], ["add", "n"]),
            (["transform", 0, "rules", "default", 1, 2], ["range", 1.5, 3]),
            (["transform", 0, "rules", "default", 1, 2], ["plus", True, 3]),
            (["transform", 0, "rules", "default", 1, 2], ["hops", {"datasets": ["d a"]}]),
            (["transform", 0, "rules", "default", 1, 2], ["datetime-plus", "dya", 1, ["now"]]),
            (["transform", 0, "rules", "default", 1], ["if", True, "add"]),
        ]:
            self.refuses(self.pipe, changed(path, value), f"{path} = {value!r}")
        alternatives = {"prod": {"type": "datset"}}
        source = {"type": "conditional", "condition": "x", "alternatives": alternatives}
        self.refuses(self.pipe, changed(["source"], source), "an alternative")
        self.refuses(self.system, {"_id": "s", "type": "system:rul"}, "a system's type")
        self.refuses(self.all, {"_id": "s", "type": "sytem:url"}, "a component's type")


if __name__ == "__main__":
    unittest.main()
