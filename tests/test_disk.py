"""The real binary on disks that are full, damaged, or end with the process: it says what is wrong,
loses nothing that it acknowledged, and goes on when it can.

Needs the environment variable TAHINI: the path of a built node.
"""

import json
import os
import random
import resource
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from nodes import Node

TAHINI = os.environ["TAHINI"]
RANDOM = random.Random(7)


def inbox(name, durable=True):
    return {"_id": name, "type": "pipe", "source": {"type": "http_endpoint"}, "metadata": {"durable": durable}}


def noise(length):
    """Text that does not become shorter by being packed."""
    return "".join(RANDOM.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/", k=length))


class OnDisk(unittest.TestCase):
    def node(self, components, **options):
        folder = tempfile.mkdtemp(prefix="tahini-disk-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        node = Node(TAHINI, folder, components, **options)
        self.addCleanup(node.end)
        return node

    def fill(self, node, pipe, most=4000):
        """Posts until that is refused; what was acknowledged, and the words of the refusal."""
        taken = {}
        for at in range(most):
            entity = {"_id": f"f{at}", "v": at, "noise": noise(6000)}
            status, text = node.post(pipe, [entity])
            if status != 200:
                self.assertIn(status, (500, 503))
                return taken, json.loads(text)["detail"]
            taken[entity["_id"]] = at
        self.fail(f"{most} posts and still room")

    def check_has(self, node, dataset, taken):
        found = node.latest(dataset)
        self.assertEqual({id: found.get(id) for id in taken}, taken)


class FilesMayOnlyBecomeSoLarge(OnDisk):
    LIMIT = 400_000

    def test_what_was_acknowledged_stays_and_others_go_on(self):
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (self.LIMIT, resource.RLIM_INFINITY))
        node = self.node([inbox("large"), inbox("small")], limits=limit).start()
        taken, words = self.fill(node, "large")
        self.assertGreater(len(taken), 20)
        self.assertRegex(words, r"writing \S+\.log: File too large")
        self.check_has(node, "large", taken)
        self.assertEqual(node.post("small", [{"_id": "a", "v": 1}])[0], 200, "another file has room")
        self.assertEqual(node.post("large", [{"_id": "f0", "noise": noise(6000)}])[0], 503, "still no room")
        node.kill()
        node.start()
        self.check_has(node, "large", taken)
        node.kill()
        node.limits = None
        node.start()
        self.check_has(node, "large", taken)
        self.check_has(node, "small", {"a": 1})
        self.assertEqual(node.post("large", [{"_id": "after", "v": 1}])[0], 200)
        self.check_has(node, "large", {**taken, "after": 1})
        self.assertEqual(node.stop(), 0)


class FullDisk(OnDisk):
    MEGABYTES = 12

    def disk(self):
        """A disk that is soon full; only the system's administrator can make one."""
        where = tempfile.mkdtemp(prefix="tahini-small-")
        self.addCleanup(os.rmdir, where)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.MEGABYTES}m", "tmpfs", where], capture_output=True, text=True)
        if mounted.returncode != 0:
            print(f"SKIP: a small disk of its own needs the right to mount one: {mounted.stderr.strip()}")
            return None
        self.addCleanup(subprocess.run, ["umount", "-l", where], check=True)
        return Path(where)

    def test_a_full_disk_is_told_and_loses_nothing(self):
        disk = self.disk()
        if disk is None:
            return
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 3_000_000)
        source = {"_id": "numbers", "type": "pipe", "source": {"type": "embedded", "entities": [{"_id": str(at), "noise": noise(200)} for at in range(300)]}, "pump": {"mode": "manual"}}
        node = self.node([inbox("box"), inbox("soon", durable=False), source], data=disk / "data").start()
        taken, words = self.fill(node, "box")
        self.assertIn("No space left on device", words)
        self.assertIn(str(disk), words, "which disk it is")
        self.check_has(node, "box", taken)
        self.assertEqual(node.ask("GET", "/readyz")[0], 200, "it can still be read")
        while node.post("soon", [{"_id": "s", "noise": noise(3000)}])[0] == 200:
            pass
        status, _, body = node.ask("POST", "/api/pipes/numbers/pump", "operation=start", "application/x-www-form-urlencoded")
        self.assertEqual(status, 200, body)
        node.kill()
        node.start()
        self.check_has(node, "box", taken)
        self.assertEqual(node.post("box", [{"_id": "f1", "noise": noise(9000)}])[0], 503)
        ballast.unlink()
        self.assertEqual(node.post("box", [{"_id": "after", "v": 1, "noise": noise(9000)}])[0], 200, "there is room again")
        self.assertTrue(node.run("numbers")["success"])
        self.check_has(node, "box", {**taken, "after": 1})
        self.assertEqual(node.stop(), 0)
        node.start()
        self.check_has(node, "box", {**taken, "after": 1})
        self.assertEqual(len(node.latest("numbers", "noise")), 300)

    def test_a_backup_that_finds_no_room_leaves_the_one_before(self):
        disk = self.disk()
        if disk is None:
            return
        node = self.node([inbox("box")])
        node.backups = disk / "backups"
        node.start()
        for at in range(50):
            self.assertEqual(node.post("box", [{"_id": f"a{at}", "v": at, "noise": noise(6000)}])[0], 200)
        node.command("backup", "own", "--node", node.url)
        for at in range(3000):
            self.assertEqual(node.post("box", [{"_id": f"b{at}", "v": at, "noise": noise(6000)}])[0], 200)
        said = node.command("backup", "own", "--node", node.url, code=1)
        self.assertIn("No space left on device", said)
        said = node.command("restore", node.backups / "own", "--check")
        self.assertIn("did not come to its end", said)
        back = node.folder / "back"
        node.command("restore", node.backups / "own", "--data", back)
        lines = node.command("entities", "box", "--data", back).splitlines()
        self.assertGreaterEqual({json.loads(line)["_id"] for line in lines}, {f"a{at}" for at in range(50)})


class DamagedSegment(OnDisk):
    def test_a_flipped_byte_is_named_and_concerns_its_dataset_alone(self):
        reader = lambda name, source: {"_id": name, "type": "pipe", "source": {"type": "dataset", "dataset": source}, "pump": {"mode": "manual"}}
        joins = reader("joins-bad", "good")
        joins["transform"] = {"type": "dtl", "rules": {"default": [["copy", "*"], ["add", "other", ["hops", {"datasets": ["bad b"], "where": ["eq", "_S._id", "b._id"], "return": "b.v"}]]]}}
        node = self.node([inbox("bad"), inbox("good"), reader("from-bad", "bad"), reader("from-good", "good"), joins]).start()
        for at in range(30):
            for name in ("bad", "good"):
                self.assertEqual(node.post(name, [{"_id": f"e{at}", "v": at}])[0], 200)
        for name in ("from-bad", "joins-bad"):
            self.assertTrue(node.run(name)["success"])
        self.assertEqual(node.stop(), 0)
        segment = next(self.folder_of(node, "bad").glob("*.log"))
        content = bytearray(segment.read_bytes())
        content[len(content) // 3] ^= 1
        segment.write_bytes(content)

        node.start()
        status, _, body = node.ask("GET", "/api/datasets/bad/entities")
        known = node.json("/api/datasets/bad")["runtime"]["damaged"]
        self.assertRegex(known, rf"the frame at byte \d+ of {segment} does not match its sum")
        # Nobody takes a part for all of it, but who wants can read what stands before the damage.
        self.assertEqual(status, 500, body)
        self.assertIn('dataset \\"bad\\" is damaged', body.decode())
        left = node.json("/api/datasets/bad/entities?damaged=true")
        self.assertTrue(0 < len(left) < 30, len(left))
        for entity in left:
            self.assertEqual(entity["_id"], f"e{entity['v']}")
        for name in ("from-bad", "joins-bad"):
            if name == "joins-bad":
                node.post("good", [{"_id": "e0", "v": 100}])
            run = node.run(name)
            self.assertFalse(run["success"])
            self.assertIn('dataset "bad" is damaged', json.dumps(run, ensure_ascii=False).replace('\\"', '"'))
            self.assertEqual(len(node.latest(name)), 30, "nothing is deleted for what cannot be read")
        self.assertIn(str(segment), node.said())
        status, text = node.post("bad", [{"_id": "new", "v": 1}])
        self.assertEqual(status, 500)
        self.assertIn(str(segment), text)
        self.assertIn('dataset \\"bad\\" is damaged', text)

        self.assertEqual(node.json("/api/status")["damaged_datasets"], [{"dataset": "bad", "found": known}])
        _, _, metrics = node.ask("GET", "/api/metrics")
        self.assertIn('tahini_dataset_damaged{dataset="bad"} 1', metrics.decode())
        self.assertIn('tahini_dataset_damaged{dataset="good"} 0', metrics.decode())
        self.assertEqual(len(node.json("/api/pipes")), 5)
        shown = {d["_id"]: d["runtime"]["damaged"] for d in node.json("/api/datasets")}
        self.assertEqual({name for name, damage in shown.items() if damage}, {"bad"})

        self.assertEqual(node.post("good", [{"_id": "new", "v": 1}])[0], 200)
        self.assertTrue(node.run("from-good")["success"])
        self.assertEqual(len(node.latest("from-good")), 31)
        self.assertEqual(node.stop(), 0)


    def folder_of(self, node, dataset):
        return next(m.parent for m in node.data.glob("datasets/*/MANIFEST") if f"\nname {dataset}\n" in m.read_text())

    def test_a_node_starts_whatever_dataset_is_damaged(self):
        source = {"_id": "numbers", "type": "pipe", "source": {"type": "embedded", "entities": [{"_id": "1"}]}, "pump": {"mode": "manual"}}
        node = self.node([inbox("manifest"), inbox("header"), inbox("gone"), inbox("good"), source]).start()
        for name in ("manifest", "header", "gone", "good"):
            self.assertEqual(node.post(name, [{"_id": "a", "v": 1}])[0], 200)
        self.assertTrue(node.run("numbers")["success"])
        self.assertEqual(node.stop(), 0)

        def flip(file, at):
            content = bytearray(file.read_bytes())
            content[at] ^= 1
            file.write_bytes(content)

        damaged = {"manifest", "header", "gone", "system:pump_execution:numbers"}
        folders = {name: self.folder_of(node, name) for name in damaged}
        flip(folders["manifest"] / "MANIFEST", 60)
        flip(folders["header"] / "000001.log", 9)
        (folders["gone"] / "000001.log").unlink()
        flip(folders["system:pump_execution:numbers"] / "000001.log", 10)
        node.start()
        self.assertEqual({one["dataset"] for one in node.json("/api/status")["damaged_datasets"]}, damaged)
        self.assertEqual(len(node.json("/api/pipes")), 5)
        self.assertEqual(node.ask("GET", "/api/metrics")[0], 200)
        self.assertFalse(node.run("numbers")["success"], "its log cannot be written")
        for name in ("manifest", "header", "gone"):
            status, text = node.post(name, [{"_id": "b", "v": 1}])
            self.assertEqual(status, 500, text)
            self.assertIn("is damaged", text)
        self.assertEqual(node.post("good", [{"_id": "b", "v": 1}])[0], 200)
        # A dataset that is deleted is made anew, and counts as what a receiver fills.
        self.assertEqual(node.ask("DELETE", "/api/datasets/header")[0], 200)
        self.assertEqual(node.post("header", [{"_id": "b", "v": 1}])[0], 200)
        self.assertTrue(node.json("/api/datasets/header")["runtime"]["populated"])
        self.assertEqual(node.stop(), 0)

    def test_a_node_whose_configuration_is_damaged_rests_and_loses_nothing(self):
        own = {"_id": "own", "type": "pipe", "source": {"type": "embedded", "entities": [{"_id": "1"}]}, "pump": {"cron_expression": "0 0 1 1 ?"}}
        for name, where, given in (("system:config", "/api/pipes", own), ("system:env", "/api/env", {"of": "own"})):
            with self.subTest(name):
                node = self.node([inbox("box")]).start()
                self.assertEqual(node.post("box", [{"_id": "a", "v": 1}])[0], 200)
                self.assertIn(node.ask("POST", where, json.dumps(given))[0], (200, 201))
                if name == "system:config":
                    self.assertTrue(node.run("own")["success"])
                datasets = {one["_id"] for one in node.json("/api/datasets")}
                self.assertEqual(node.stop(), 0)
                segment = self.folder_of(node, name) / "000001.log"
                whole = segment.read_bytes()
                segment.write_bytes(whole[:10] + bytes([whole[10] ^ 1]) + whole[11:])
                damaged = segment.read_bytes()

                node.start()
                self.assertEqual([one["dataset"] for one in node.json("/api/status")["damaged_datasets"]], [name])
                self.assertIn(f'dataset "{name}" is damaged', node.said())
                self.assertEqual(node.json("/readyz?verbose")["configuration"], "damaged")
                self.assertEqual(node.latest("box"), {"a": 1})
                asks = [("GET", "/api/config"), ("GET", "/api/pipes"), ("PUT", "/api/config"), ("PUT", "/api/env"), ("POST", "/api/pipes"), ("PUT", "/api/secrets")]
                for method, path in [*asks, ("POST", "/api/receivers/box/entities"), ("POST", "/api/pipes/box/pump"), ("DELETE", "/api/pipes/own"), ("GET", "/api/health")]:
                    status, _, body = node.ask(method, path, None if method == "GET" else "[]")
                    self.assertEqual(status, 503, f"{method} {path}: {body}")
                    self.assertIn("the node's configuration is damaged", body.decode())
                self.assertEqual(node.stop(), 0)
                self.assertEqual(segment.read_bytes(), damaged, "nothing is written over it")

                # As it was before, everything is as it was before.
                segment.write_bytes(whole)
                node.start()
                self.assertEqual({one["_id"] for one in node.json("/api/datasets")}, datasets)
                if name == "system:config":
                    self.assertEqual({one["_id"] for one in node.json("/api/pipes")}, {"box", "own"})
                    self.assertEqual(len(node.json("/api/pipes/own/log")), 2)
                else:
                    self.assertEqual(node.json("/api/env"), {"of": "own"})
                self.assertEqual(node.ask("DELETE", f"/api/datasets/{name}")[0], 409)
                self.assertEqual(node.stop(), 0)

                # Whoever has no backup gives it up, and has what the project says.
                segment.write_bytes(damaged)
                node.start()
                self.assertEqual(node.ask("DELETE", f"/api/datasets/{name}")[0], 200)
                self.assertEqual(node.ask("PUT", "/api/config", "[]")[0], 503, "not before the next start")
                self.assertEqual(node.stop(), 0)
                node.start()
                self.assertEqual(node.post("box", [{"_id": "b", "v": 1}])[0], 200)
                self.assertIn(node.ask("POST", where, json.dumps(given))[0], (200, 201))
                self.assertEqual(node.stop(), 0)


class DataFolder(OnDisk):
    def test_rights_of_others_are_taken_away(self):
        node = self.node([])
        node.data.mkdir(mode=0o755)
        node.data.chmod(0o755)
        node.start()
        self.assertEqual(node.data.stat().st_mode & 0o777, 0o700)
        self.assertIn("0755", node.said())
        node.stop()
        node.data.chmod(0o700)
        before = node.said()
        node.start()
        self.assertNotIn("its owner's alone", node.said()[len(before) :])


if __name__ == "__main__":
    unittest.main()
