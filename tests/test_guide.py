"""The guides to microservices: their commands are run as they stand there, and do what it says.

Needs the environment variable TAHINI, the path of a built node. Beside a container engine (tests/rig/with-engine.sh)
those that need one are run, too.
"""

import base64
import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from nodes import free_port

GUIDES = Path(__file__).resolve().parents[1] / "docs/guide"
GUIDE = GUIDES / "microservices.md"
TAHINI = Path(os.environ["TAHINI"]).absolute()
ENGINE = os.environ.get("TAHINI_ENGINE") == "1"
MARK = "@@@ "


def said_by(blocks, folder, **environment):
    """What each block printed, all of them in one shell, since later ones use what earlier ones started."""
    script = "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n" + "".join(f"echo '{MARK}'\n{block}" for block in blocks)
    # The guide's usual port may be taken.
    script = script.replace("9042", str(free_port()))
    env = {**os.environ, "PATH": f"{TAHINI.parent}:{os.environ['PATH']}", "NO_PROXY": "*", "TAHINI_MASTER_KEY_FILE": f"{folder}/master.key", **environment}
    done = subprocess.run(["bash", "-eu", "-o", "pipefail", "-c", script], cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise AssertionError(f"ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout.split(MARK)[1:]


def blocks(kind, guide=GUIDE):
    return re.findall(rf"^```{kind}\n(.*?)^```", guide.read_text("utf-8"), re.M | re.S)


class InTurn(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="tahini-guide-")
        cls.addClassCleanup(folder.cleanup)
        cls.blocks = blocks("sh")
        cls.said = dict(zip(cls.blocks, said_by(cls.blocks, folder.name)))

    def after(self, words):
        """What the block with these words printed."""
        found = [said for block, said in self.said.items() if words in block]
        self.assertEqual(len(found), 1, words)
        return found[0]

    def row(self, text, pipe):
        """Read, changed, deleted and failed of a pipe's last run."""
        found = re.findall(rf"^{pipe} +(\w+) +(\d+) +(\d+) +(\d+) +(\d+) ", text, re.M)
        kind, *counts = found[-1]
        return (kind, *map(int, counts))

    def test_the_first_run_and_what_changed_later(self):
        first = self.after("tahini entities people-collect --data hub-data\n")
        self.assertEqual(self.row(first, "people-collect"), ("full", 4, 4, 1, 0))
        self.assertIn("Ada Lovelace", first)
        self.assertEqual(self.row(self.after("Rear Admiral"), "people-collect"), ("incremental", 1, 1, 0, 0))

    def test_a_deletion(self):
        said = self.after('"changed": 6, "deleted": true')
        self.assertEqual(self.row(said, "people-collect"), ("incremental", 1, 1, 1, 0))
        self.assertRegex(said, r'"_id":"1","_deleted":true')

    def test_a_sink_and_a_transform(self):
        self.assertEqual(self.row(self.after("new archive"), "archive-share"), ("full", 3, 3, 0, 0))
        self.assertIn('"name": "Grace Hopper"', self.after("new archive"))
        self.assertIn('"initials":"AL"', self.after("new initials"))

    def test_nobodys_change_is_overwritten(self):
        said = self.after('"name": "Ada King"')
        self.assertEqual(self.row(said, "crm-share"), ("incremental", 1, 0, 0, 1))
        self.assertIn("Ada King", said.splitlines()[-1])
        written = [said for block, said in self.said.items() if block.startswith("tahini run hub --data hub-data\ntail")]
        self.assertIn("A. Lovelace", written[0].splitlines()[-1])

    def test_the_execution_log_has_the_services_words(self):
        self.assertIn("expected change 5 in the system, found 107", self.after("pump_execution"))

    def test_the_service_behind_the_node(self):
        said = self.after("tahini serve hub --data hub-data")
        self.assertIn('"_id":"2"', said)
        self.assertIn("listening on port", said)
        self.assertIn('"running"', said)
        self.assertIn('"restarting"', said)

    def test_a_pipe_gives_what_is_expected(self):
        said = self.after("tahini test hub --update")
        self.assertEqual(said.count("1 passed, 0 failed"), 2, said)

    def test_the_checks_find_nothing(self):
        said = self.after("tahini microservice check")
        self.assertEqual(re.findall(r"(\d+) wrong, (\d+) warnings", said), [("0", "0"), ("0", "0")])
        self.assertEqual(json.loads(said.strip().splitlines()[-1])["wrong"], 0)


class HostingInTurn(unittest.TestCase):
    def test_a_token_that_opens_the_proxy_and_nothing_else(self):
        own = blocks("sh", GUIDES / "hosting.md")
        self.assertEqual(len(own), 1)
        with tempfile.TemporaryDirectory(prefix="tahini-guide-") as folder:
            (said,) = said_by(own, folder, TAHINI_TOKEN_KEY_FILE=f"{folder}/token.key")
        claims = said.split()[-1].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        self.assertIn("proxy", json.dumps(claims))


class WithAnEngine(unittest.TestCase):
    def test_the_same_service_in_a_container(self):
        if not ENGINE:
            self.skipTest("only beside a container engine")
        own = blocks("sh engine")
        self.assertEqual(len(own), 2)
        # The Dockerfile's base comes from Docker Hub; here the rig's image stands for it.
        before = f"docker tag {os.environ['TEST_IMAGE']} python:3.12-alpine\n"
        with tempfile.TemporaryDirectory(prefix="tahini-guide-") as folder:
            said = said_by([before + blocks("sh")[0], *own], folder)
            self.assertIn('"_id":"1"', said[-1])
            self.assertIn("0 wrong, 0 warnings", said[-1])


if __name__ == "__main__":
    unittest.main()
