"""Rescans in the background and kill -9, with the real binary: a node that is killed again and again
while a rescan and incremental runs are at work loses nothing, deletes nothing wrongly, and ends
where an undisturbed one would.

Needs the environment variable TAHINI: the path of a built node.
"""

import os
import random
import shutil
import signal
import tempfile
import time
import unittest
from pathlib import Path

from nodes import Node, wait

TAHINI = os.environ["TAHINI"]
ENTITIES = 4_000
KILLS = 12
SEED = 4
# In `p` and not in its source: only a whole rescan may delete them.
STRANGERS = [f"stranger:{i}" for i in range(20)]
# Never deleted upstream.
ALWAYS = ENTITIES // 2

PIPES = [
    {"_id": "in", "type": "pipe", "source": {"type": "http_endpoint"}, "compaction": {"keep_versions": 1000}},
    {
        "_id": "p",
        "type": "pipe",
        "source": {"type": "dataset", "dataset": "in"},
        "enable_background_rescan": True,
        "batch_size": 4,
        "checkpoint_interval": 1,
        "pump": {"schedule_interval": 0.2},
        "compaction": {"keep_versions": 1000},
    },
]


class Killed(unittest.TestCase):
    def setUp(self):
        folder = Path(tempfile.mkdtemp(prefix="tahini-rescans-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.node = Node(TAHINI, folder, PIPES)
        self.addCleanup(self.node.end)
        self.random = random.Random(SEED)
        self.upstream, self.v = {}, 0

    def put(self, entities):
        status, text = self.node.post("in", entities)
        self.assertEqual(status, 200, text)
        for entity in entities:
            if entity.get("_deleted"):
                self.upstream.pop(entity["_id"], None)
            else:
                self.upstream[entity["_id"]] = entity["v"]

    def change(self):
        """A few entities change upstream, some go and some come."""
        changed = []
        for _ in range(self.random.randrange(1, 20)):
            self.v += 1
            number = self.random.randrange(ENTITIES)
            gone = number >= ALWAYS and self.random.random() < 0.4
            changed.append({"_id": f"e:{number}", "v": self.v, **({"_deleted": True} if gone else {})})
        self.put(changed)

    def rescan(self):
        return self.node.json("/api/pipes/p/pump")["runtime"]["rescan"]

    def completed(self):
        """The rescans that the log tells of as completed."""
        log = self.node.json("/api/pipes/p/log")
        return [entry for entry in log if entry.get("background_rescan") and entry["event_type"] == "pump-completed"]

    def caught_up(self):
        self.put([{"_id": "last", "v": self.v}])
        wait("the last change", lambda: self.node.latest("p").get("last") == self.upstream["last"])
        self.v += 1

    def all_versions(self):
        return self.node.entities("p", history="true", deleted="true")

    def test_a_rescan_that_is_killed_with_runs_beside_it_goes_on_and_loses_nothing(self):
        node = self.node.start()
        self.put([{"_id": f"e:{i}", "v": 0} for i in range(ENTITIES)])
        wait("the first run", lambda: node.json("/api/pipes/p/pump")["runtime"]["last-seen"] == ENTITIES - 1)
        self.assertTrue(node.latest("p") == self.upstream)
        status, _, text = node.ask("POST", "/api/datasets/p/entities", str([{"_id": id, "v": 0} for id in STRANGERS]).replace("'", '"'))
        self.assertEqual(status, 200, text)
        wait("rest", lambda: node.operate("p", "start-rescan")[0] == 200)
        in_the_middle = 0
        for kill in range(KILLS):
            with self.subTest(kill=kill):
                until = time.monotonic() + self.random.uniform(0.1, 0.8)
                while time.monotonic() < until:
                    self.change()
                if not self.rescan()["is-unfinished"]:
                    wait("another rescan", lambda: node.operate("p", "start-rescan")[0] == 200)
                    time.sleep(self.random.uniform(0, 0.05))
                if self.rescan()["is-unfinished"]:
                    in_the_middle += 1
                    left = [id for id in node.latest("p") if id in STRANGERS]
                    if len(left) < len(STRANGERS):
                        # Deleting is the last that a rescan does: now, or in an earlier round.
                        wait("a whole rescan before anything is deleted", self.completed)
                node.kill()
                # A node that had ended by itself would have an exit code.
                self.assertEqual(node.process.returncode, -signal.SIGKILL)
                node.start()
        self.assertGreater(in_the_middle, KILLS // 2, "most kills came too late to mean anything")
        self.caught_up()
        wait("the rest of the rescan", lambda: not self.rescan()["is-unfinished"])
        self.assertTrue(self.completed(), "no rescan stands in the log as completed")
        # What went while an interrupted rescan was under way is the next one's.
        wait("another rescan", lambda: node.operate("p", "start-rescan")[0] == 200)
        wait("its end", lambda: not self.rescan()["is-unfinished"] and not self.rescan()["is-running"])
        self.caught_up()
        self.assertTrue(node.latest("in") == self.upstream, "the input lost something")
        found = node.latest("p")
        differs = [id for id in self.upstream.keys() | found.keys() if found.get(id) != self.upstream.get(id)]
        self.assertEqual(differs[:10], [])
        versions = self.all_versions()
        wrongly = [e["_id"] for e in versions if e["_deleted"] and e["_id"].startswith("e:") and int(e["_id"][2:]) < ALWAYS]
        self.assertEqual(wrongly, [])
        self.assertTrue([e["_updated"] for e in versions] == list(range(len(versions))), "a version is missing")
        before = {}
        for entity in versions:
            known = before.get(entity["_id"])
            self.assertEqual(entity.get("_previous"), known and known["_updated"])
            self.assertNotEqual((entity["v"], entity["_deleted"]), known and (known["v"], known["_deleted"]), "a version that changed nothing")
            before[entity["_id"]] = entity


if __name__ == "__main__":
    unittest.main()
