"""The demo with the real node: as expected when all is well, and not when one thing is broken.

Needs the node's path in TAHINI. Without it these are skipped, and fail where CI is set.
"""

import os
import subprocess
import sys
import unittest

from support import ROOT, needs_node

WITHIN_SECONDS = 300


@needs_node
class WithTheNode(unittest.TestCase):
    def demo(self, *options):
        return subprocess.run(
            [sys.executable, ROOT / "demo" / "demo.py", "--tahini", os.environ["TAHINI"], "--once", *options],
            capture_output=True, text=True, timeout=WITHIN_SECONDS,
        )

    def test_all_is_well(self):
        ended = self.demo()
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)

    def test_what_is_broken_is_noticed_and_named(self):
        for broken, pipe in [
            ("hubspot-truncate", "hubspot-contacts-collect"),
            ("github-limit", "github-repos-collect"),
            ("crm-down", "people-to-crm"),
            ("postcode-truncate", "customers-with-place"),
        ]:
            with self.subTest(broken):
                ended = self.demo("--break", broken)
                self.assertEqual(ended.returncode, 1, ended.stdout + ended.stderr)
                self.assertIn(f"first run: {pipe}: ", ended.stderr)
                others = [line for line in ended.stderr.splitlines() if "first run: " in line and pipe not in line]
                self.assertEqual(others, [], "what is broken must not reach the other pipes")


if __name__ == "__main__":
    unittest.main()
