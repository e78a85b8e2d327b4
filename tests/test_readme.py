"""The README's first pipe: its commands are run as they stand there, and do what it says.

Needs the environment variable TAHINI: the path of a built node.
"""

import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
TAHINI = Path(os.environ["TAHINI"])


class FirstPipe(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """Every `sh` block in turn, in one empty folder; `said` is what each printed."""
        folder = tempfile.TemporaryDirectory(prefix="tahini-readme-")
        cls.addClassCleanup(folder.cleanup)
        blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text("utf-8"), re.M | re.S)
        path = f"{TAHINI.parent}:{os.environ['PATH']}"
        cls.said = []
        for block in blocks:
            done = subprocess.run(["bash", "-eu", "-c", block], cwd=folder.name, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode != 0:
                raise AssertionError(f"{block}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
            cls.said.append(done.stdout)

    def test_there_are_four_steps(self):
        self.assertEqual(len(self.said), 4)

    def test_the_run_tells_of_both_pipes(self):
        self.assertIn("people", self.said[0])
        self.assertIn("greetings", self.said[0])

    def test_the_greetings(self):
        self.assertEqual(re.findall(r"Hello, .*?!", self.said[1]), ["Hello, Ada!", "Hello, Grace!"])

    def test_only_the_change_goes_through(self):
        self.assertEqual(re.findall(r"Hello, .*?!", self.said[2]), ["Hello, Ada!", "Hello, Grace!", "Hello, Rear Admiral Hopper!"])

    def test_the_trace_knows_the_entity(self):
        self.assertIn("Hello, Rear Admiral Hopper!", self.said[3])

    def test_the_trace_knows_why_it_was_written(self):
        self.assertRegex(self.said[3], r"version 2 was written at \S+, by the incremental run")
        before, after = re.search(r"because it was not version 1: hash (\w+) before, (\w+) after, different in greeting", self.said[3]).groups()
        self.assertNotEqual(before, after)


if __name__ == "__main__":
    unittest.main()
