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
SAID = re.search(r"^```text\n\$ tahini why customers\n(.*?)^```", GUIDE, re.M | re.S)[1]


class Lineage(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="tahini-lineage-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.node = Node(TAHINI, self.folder, PROJECT)
        self.addCleanup(self.node.end)
        self.node.start()

    def why(self, *arguments):
        command = [TAHINI, "why", *arguments]
        return subprocess.run(command, env={**os.environ, "NO_PROXY": "*"}, capture_output=True, text=True, timeout=60)

    def test_the_guide_says_what_the_node_says(self):
        told = self.node.json("/api/pipes/customers/lineage?property=label")
        self.assertEqual(told, LABEL)
        names = [row["property"] for row in self.node.json("/api/pipes/customers/lineage")["properties"]]
        self.assertEqual(names, ["_id", "country", "label", "name"])
        self.assertEqual(self.node.json("/api/pipes/customers/lineage?property=nothing")["properties"], [])

    def test_a_pipe_that_waits_leads_to_where_that_begins(self):
        self.node.run("customers")
        done = self.why("customers", "--node", self.node.url)
        self.assertEqual(done.returncode, 0, done.stderr)
        steady = lambda text: [line for line in text.splitlines() if "next run" not in line]
        self.assertEqual(steady(done.stdout), steady(SAID))
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
