"""Backup and restore through the binary: the guide's commands as they stand there, pipes after a
restore, and the ways in which it says no.

Needs the environment variable TAHINI: the path of a built node.
"""

import json
import os
import re
import shlex
import shutil
import tempfile
import unittest
from pathlib import Path

from nodes import Node

TAHINI = os.environ["TAHINI"]
GUIDE = Path(__file__).resolve().parents[1] / "docs/guide/backup.md"


def inbox(name):
    return {"_id": name, "type": "pipe", "source": {"type": "http_endpoint"}}


def reader(name, source, **more):
    return {"_id": name, "type": "pipe", "source": {"type": "dataset", "dataset": source}, "pump": {"mode": "manual"}, **more}


class Backups(unittest.TestCase):
    def node(self, components, **options):
        folder = Path(tempfile.mkdtemp(prefix="tahini-backup-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        node = Node(TAHINI, folder, components, **options)
        self.addCleanup(node.end)
        return node

    def put(self, node, pipe, **values):
        status, text = node.post(pipe, [{"_id": id, "v": v} for id, v in values.items()])
        self.assertEqual(status, 200, text)

    def contents(self, folder):
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "LOCK"}


class Guide(Backups):
    def test_every_command_does_what_it_says(self):
        commands = [line for block in re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text("utf-8"), re.M | re.S) for line in block.splitlines()]
        self.assertEqual(len(commands), 6)
        node = self.node([inbox("box")])
        shutil.move(node.project, node.folder / "my-project")
        said, served = [], 0
        for command in commands:
            words = shlex.split(command)
            self.assertEqual(words[0], "tahini")
            places = [node.url if word.startswith("http://") else str(node.folder / word) if word.startswith(("my-", "restored")) else word for word in words[1:]]
            if words[1] == "serve":
                node.end()
                # The guide's options, and a free port.
                node.project, node.data = node.folder / words[2], node.folder / words[words.index("--data") + 1]
                node.backups = node.folder / "my-backups"
                if served:
                    self.assertNotIn("--backups", words)
                node.start()
                served += 1
                if served == 1:
                    self.put(node, "box", a=1, b=2)
                continue
            if words[1] == "backup" and "--node" not in words:
                self.put(node, "box", c=3)
                self.assertEqual(node.stop(), 0)
            said.append(node.command(*places))
        self.assertEqual(served, 2)
        self.assertRegex(said[0], r"Saved \d+ datasets to daily: [\d.]+ \w+ copied, 0 bytes were there")
        self.assertRegex(said[1], r"Saved 1 datasets to \S+: [1-9][\d.]* \w+ copied")
        self.assertRegex(said[2], r"Read \S+ through: node \w{12}, \d+ datasets")
        self.assertRegex(said[3], r"Restored \S+ into \S+restored: node")
        self.assertEqual(node.latest("box"), {"a": 1, "b": 2, "c": 3})


class AfterARestore(Backups):
    def restored(self, node, **options):
        """Ends the node, and starts it on what was saved."""
        node.end()
        node.command("restore", node.backups / "own", "--data", node.data, "--force")
        return node.start()

    def test_configuration_secrets_and_places_come_back(self):
        node = self.node([]).start()
        config = [inbox("box"), reader("copy", "box")]
        status, _, body = node.ask("PUT", "/api/config", json.dumps(config))
        self.assertEqual(status, 200, body)
        node.ask("PUT", "/api/secrets", json.dumps({"word": "sesame"}))
        self.put(node, "box", a=1, b=2)
        node.run("copy")
        saved = json.loads(node.command("backup", "own", "--node", node.url, "--json"))
        self.assertNotIn(b"sesame", b"".join(self.contents(node.backups).values()))
        identity = (node.data / "node-id").read_text()
        self.assertEqual(saved["node_id"], identity)
        self.put(node, "box", a=9, c=9)
        node.run("copy")
        node.ask("PUT", "/api/config", "[]")
        node.ask("PUT", "/api/secrets", "{}")

        self.restored(node)
        self.assertEqual((node.data / "node-id").read_text(), identity)
        self.assertEqual({pipe["_id"] for pipe in node.json("/api/pipes")}, {"box", "copy"})
        self.assertEqual(node.json("/api/secrets"), ["word"])
        self.assertEqual(node.latest("box"), {"a": 1, "b": 2})
        self.assertEqual(node.latest("copy"), {"a": 1, "b": 2})
        self.put(node, "box", b=5)
        again = node.run("copy")["last-run-summary"]
        self.assertEqual((again["entities_read"], again["changed"]), (1, 1), "it goes on where it was, and reads nothing anew")
        self.assertEqual(node.latest("copy"), {"a": 1, "b": 5})

    def test_a_pipe_that_has_read_more_than_there_is_starts_over(self):
        """The reader on another node has read what the restored node does not have any more."""
        publisher = {"_id": "out", "type": "pipe", "source": {"type": "dataset", "dataset": "box"}, "sink": {"type": "http_endpoint"}}
        node = self.node([inbox("box"), publisher]).start()
        system = {"_id": "other", "type": "system:url", "url_pattern": f"{node.url}/%s"}
        pull = {"_id": "pull", "type": "pipe", "source": {"type": "json", "system": "other", "url": "api/publishers/out/entities", "supports_since": True, "is_chronological": True}, "pump": {"mode": "manual"}}
        down = self.node([system, pull]).start()
        self.put(node, "box", a=1, b=1)
        node.command("backup", "own", "--node", node.url)
        self.put(node, "box", a=2, b=2, c=2)
        self.assertTrue(down.run("pull")["success"])
        self.assertEqual(down.latest("pull"), {"a": 2, "b": 2, "c": 2})
        self.restored(node)
        self.put(node, "box", a=3, d=3)
        self.assertTrue(down.run("pull")["success"])
        self.assertEqual(down.latest("pull") | {"c": 0}, {"a": 3, "b": 1, "c": 0, "d": 3}, "it has read anew what is there now")

    def test_what_is_read_from_outside_is_read_again_since_the_backup(self):
        source = self.node([inbox("box")]).start()
        system = {"_id": "other", "type": "system:url", "url_pattern": f"{source.url}/%s"}
        pull = {"_id": "pull", "type": "pipe", "source": {"type": "json", "system": "other", "url": "api/datasets/box/entities", "supports_since": True, "is_chronological": True}, "pump": {"mode": "manual"}}
        node = self.node([system, pull]).start()
        self.put(source, "box", a=1, b=1)
        node.run("pull")
        node.command("backup", "own", "--node", node.url)
        self.put(source, "box", b=2, c=2)
        node.run("pull")
        self.restored(node)
        self.assertEqual(node.latest("pull"), {"a": 1, "b": 1})
        again = node.run("pull")["last-run-summary"]
        self.assertEqual(again["entities_read"], 2, "what came since, and nothing else")
        self.assertEqual(node.latest("pull"), {"a": 1, "b": 2, "c": 2})


class Refusals(Backups):
    def setUp(self):
        self.own = self.node([inbox("box")]).start()
        self.put(self.own, "box", a=1)

    def test_a_node_saves_only_where_it_may(self):
        node = self.own
        for name in ("../elsewhere", "/tmp/elsewhere", "", ".hidden", "a/b"):
            status, _, body = node.ask("POST", "/api/backups", json.dumps({"name": name}))
            self.assertEqual(status, 409, (name, body))
        self.assertEqual(node.json("/api/backups"), [])
        node.command("backup", "own", "--node", node.url)
        shown = node.json("/api/backups/own?check=true")
        self.assertEqual((shown["_id"], shown["damaged"]), ("own", []))
        self.assertEqual(node.ask("GET", "/api/backups/other")[0], 404)
        said = node.command("backup", "own", "--node", "http://127.0.0.1:1", code=4)
        self.assertIn("expected a node at http://127.0.0.1:1", said)

    def test_a_running_nodes_folder_is_left_alone(self):
        node = self.own
        said = node.command("backup", node.folder / "copy", "--data", node.data, code=1)
        self.assertIn("--node", said)
        node.command("backup", "own", "--node", node.url)
        said = node.command("restore", node.backups / "own", "--data", node.data, "--force", code=1)
        self.assertIn("stop the node", said)
        self.assertEqual(node.latest("box"), {"a": 1})

    def test_folders_of_other_nodes_and_things_are_refused(self):
        node, other = self.own, self.node([inbox("box")]).start()
        node.command("backup", "own", "--node", node.url)
        other.end()
        said = other.command("backup", node.backups / "own", "--data", other.data, code=1)
        self.assertIn("found one of the node", said)
        letters = node.folder / "letters"
        letters.mkdir()
        (letters / "dear.txt").write_text("you")
        said = other.command("backup", letters, "--data", other.data, code=1)
        self.assertIn("dear.txt", said)
        said = other.command("restore", node.backups / "own", "--data", letters, "--force", code=1)
        self.assertIn("dear.txt", said)
        said = other.command("restore", node.backups / "own", "--data", other.data, code=1)
        self.assertIn("--force", said)
        said = other.command("backup", other.data / "inside", "--data", other.data, code=1)
        self.assertIn("outside the data folder", said)
        self.assertIn("found no file BACKUP", other.command("restore", letters, "--data", node.folder / "new", code=1))

    def test_damage_is_found_and_restored_only_when_that_is_wanted(self):
        node = self.own
        node.command("backup", "own", "--node", node.url)
        saved = node.backups / "own"
        segment = next(m.parent for m in saved.glob("store/datasets/*/MANIFEST") if "\nname box\n" in m.read_text()) / "000001.log"
        content = bytearray(segment.read_bytes())
        content[-20] ^= 4
        segment.write_bytes(content)
        self.assertIn(f"of {segment} does not match its sum", node.command("restore", saved, "--check", code=7))
        back = node.folder / "back"
        self.assertIn("the backup is damaged", node.command("restore", saved, "--data", back, code=1))
        self.assertFalse(back.exists() and any(back.iterdir()))
        node.command("restore", saved, "--data", back, "--force", code=7)
        self.assertTrue((back / "datasets").is_dir())

    def test_a_restore_that_was_cut_off_is_finished_or_refused(self):
        node = self.own
        node.command("backup", "own", "--node", node.url)
        node.end()
        (node.data / "RESTORING").mkdir()
        self.assertIn("did not come to its end", node.command("entities", "box", "--data", node.data, code=1))
        self.put_copy(node, "RESTORED", node.data)
        (node.data / "RESTORING").rmdir()
        # As if the power had gone between two steps: one part has moved already.
        os.replace(node.data / "RESTORED/FORMAT", node.data / "FORMAT")
        lines = node.command("entities", "box", "--data", node.data).splitlines()
        self.assertEqual([json.loads(line)["_id"] for line in lines], ["a"])
        self.assertFalse((node.data / "RESTORED").exists())

    def put_copy(self, node, name, data):
        """What a restore has made when the copy is whole and nothing has moved yet."""
        saved, copy = node.backups / "own", data / name
        shutil.copytree(saved / "store/datasets", copy / "datasets")
        shutil.copy(saved / "store/FORMAT", copy / "FORMAT")
        shutil.copy(saved / "node-id", copy / "node-id")
        (copy / "LOCK").write_text("FORMAT\ndatasets\nnode-id")


if __name__ == "__main__":
    unittest.main()
