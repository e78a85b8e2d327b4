"""Why pipes are idle, and where properties come from: the guide's answers, asked of the real binary.

Needs the environment variable TAHINI: the path of a built node.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from nodes import Node

TAHINI = os.environ["TAHINI"]
GUIDE = (Path(__file__).resolve().parents[1] / "docs/guide/lineage.md").read_text("utf-8")
PROJECT, LABEL = (json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", GUIDE, re.M | re.S))
# What the guide says that commands print, by the command.
SAID = dict(re.findall(r"^```text\n\$ tahini ([^\n]*)\n(.*?)^```", GUIDE, re.M | re.S))


class Lineage(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="tahini-lineage-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.node = Node(TAHINI, self.folder, PROJECT)
        self.addCleanup(self.node.end)
        self.node.start()

    def why(self, *arguments):
        return self.command("why", *arguments)

    def command(self, *words):
        command = [TAHINI, *words]
        return subprocess.run(command, env={**os.environ, "NO_PROXY": "*"}, capture_output=True, text=True, timeout=120)

    def test_the_guide_says_what_the_node_says(self):
        told = self.node.json("/api/pipes/customers/lineage?property=label")
        self.assertEqual(told, LABEL)
        names = [row["property"] for row in self.node.json("/api/pipes/customers/lineage")["properties"]]
        self.assertEqual(names, ["_id", "country", "label", "name"])
        self.assertEqual(self.node.json("/api/pipes/customers/lineage?property=nothing")["properties"], [])

    def test_commands_say_what_the_guide_says(self):
        self.node.run("countries")
        self.node.post("people", [{"_id": str(n), "name": f"n{n}", "land": land} for n, land in enumerate(("NO", "NO", "SE"))])
        for said in ("lineage customers label", "hops customers"):
            done = self.command(*said.split(), "--node", self.node.url)
            self.assertEqual((done.returncode, done.stdout), (0, SAID[said]), done.stderr)
        told = json.loads(self.command("lineage", "customers", "label", "--json", "--node", self.node.url).stdout)
        self.assertEqual(told, LABEL)
        told = json.loads(self.command("hops", "customers", "--json", "--node", self.node.url).stdout)
        self.assertEqual([(one["dataset"], one["largest"], one["largest-key"]) for one in told["tracked"]], [("people", 2, "NO")])

    def test_what_is_taken_over_inside_a_property_says_where_it_comes_from(self):
        inner = [["copy", ["list", "street", "z*"], ["list", "zone"]], ["add", "full", ["concat", "_S.street", " ", "_S.zip"]]]
        rules = {"default": [["copy", "_id"], ["add", "address", ["apply", "inner", "_S.address"]]], "inner": inner}
        pipe = {"_id": "moved", "type": "pipe", "source": {"type": "dataset", "dataset": "people"}, "transform": {"type": "dtl", "rules": rules}}
        node = Node(TAHINI, self.folder / "moved", [PROJECT[0], pipe])
        self.addCleanup(node.end)
        node.start()
        told = self.command("lineage", "moved", "address", "--node", node.url).stdout
        self.assertIn("- address.*: street, z* but not full, zone, of address of people\n", told)
        self.assertRegex(told, r"- address\.full: computed from address\.street of people, address\.zip of people")

    def test_what_cannot_be_told_is_said(self):
        told = self.command("lineage", "customers", "nothing", "--node", self.node.url).stdout
        self.assertIn("it writes no property nothing", told)
        told = self.command("lineage", "customers", "name", "--depth", "1", "--node", self.node.url).stdout
        self.assertIn("begins before people, further back than was asked for", told)
        self.assertIn("join nothing by an index", self.command("hops", "people", "--node", self.node.url).stdout)
        for command in ("lineage", "hops"):
            done = self.command(command, "nobody", "--node", self.node.url)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn("nobody", done.stderr)
            self.assertEqual(self.command(command, "customers", "--node", "http://127.0.0.1:9").returncode, 4)
            self.assertIn(command, self.command("completions", "bash").stdout)

    def test_a_pipe_that_waits_leads_to_where_that_begins(self):
        self.node.run("customers")
        done = self.why("customers", "--node", self.node.url)
        self.assertEqual(done.returncode, 0, done.stderr)
        steady = lambda text: [line for line in text.splitlines() if "next run" not in line]
        self.assertEqual(steady(done.stdout), steady(SAID["why customers"]))
        runtime = self.node.json("/api/pipes/customers")["runtime"]
        self.assertEqual(runtime["waits-for"], ["countries"])
        log = self.node.json("/api/datasets/system:pump_execution:customers/entities")
        waiting = [entry for entry in log if entry["event_type"] == "pump-waiting"]
        self.assertEqual([entry["datasets"] for entry in waiting], [["countries"]])
        told = self.node.json("/api/pipes/customers/idle")
        self.assertEqual([(one["pipe"], one["reason"]) for one in told["root-causes"]], [("countries", "no-schedule")])
        self.node.run("countries")
        self.node.run("customers")
        told = json.loads(self.why("customers", "--node", self.node.url, "--json").stdout)
        self.assertEqual([one["reason"] for one in told["reasons"]], ["nothing-new"])
        self.assertEqual(self.node.json("/api/pipes/customers")["runtime"]["waits-for"], [])

    def test_who_cannot_be_asked_is_told(self):
        self.assertEqual(self.why("customers", "--node", "http://127.0.0.1:9").returncode, 4)
        done = self.why("nobody", "--node", self.node.url)
        self.assertEqual(done.returncode, 1)
        self.assertIn("nobody", done.stderr)
