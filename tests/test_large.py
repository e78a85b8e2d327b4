"""Large entities through pipes with the real binary: what a node needs of memory follows the largest entity, and not
how many there are. One copy more than there has to be fails.

Needs the environment variable TAHINI: the path of a built node.
"""

import os
import random
import shutil
import tempfile
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from nodes import Node, Peak

TAHINI = os.environ["TAHINI"]
ENTITIES = 4
BYTES = 40 << 20
# How often an entity is in the node's own memory at most. A source reads it as text or from the log and encodes it,
# and lets go of what it read; a sink packs what it was given, with room for a tenth more. Rules make another one beside
# the one that they are given.
TIMES = {"in": 2.1, "on": 2.1, "ruled": 3.1}
# What the node needs without any of them: 12 MB are usual. Far less than one more copy.
REST = 24 << 20


def noise(length, dice):
    """Text that does not become shorter by being packed."""
    return dice.randbytes(length // 2).hex()


class Source:
    """Serves the entities as one array, from memory."""

    def __init__(self):
        dice = random.Random(40)
        text = [noise(BYTES, dice) for _ in range(ENTITIES)]
        parts = [f'{"[" if at == 0 else ","}{{"_id": "e{at}", "_updated": {at}, "text": "{one}"}}'.encode() for at, one in enumerate(text)]

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                new = parts if "since" not in self.path else []
                body = [*new, b"]"] if new else [b"[]"]
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(sum(map(len, body))))
                self.end_headers()
                for part in body:
                    self.wfile.write(part)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/%s"


class Large(unittest.TestCase):
    def setUp(self):
        folder = Path(tempfile.mkdtemp(prefix="tahini-large-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.source = Source()
        self.addCleanup(self.source.server.server_close)
        self.addCleanup(self.source.server.shutdown)
        manual = {"pump": {"mode": "manual"}}
        over_http = {"type": "json", "system": "outside", "url": "large", "supports_since": True, "is_chronological": True}
        self.node = Node(TAHINI, folder, [
            {"_id": "outside", "type": "system:url", "url_pattern": self.source.url},
            {"_id": "in", "type": "pipe", "source": over_http, **manual},
            {"_id": "on", "type": "pipe", "source": {"type": "dataset", "dataset": "in"}, **manual},
            {"_id": "ruled", "type": "pipe", "source": {"type": "dataset", "dataset": "in"}, "transform": {"type": "dtl", "rules": {"default": [["copy", "*"], ["add", "seen", True]]}}, **manual},
        ])  # fmt: skip
        self.addCleanup(self.node.end)

    def test_memory_follows_the_largest_entity_and_not_their_number(self):
        node, found = self.node.start(), {}
        for pipe in ("in", "on", "ruled"):
            peak = Peak(node)
            run = node.run(pipe, 300)["last-run-summary"]
            found[pipe] = round(peak.taken() / BYTES, 2)
            self.assertTrue(run["success"], run)
            self.assertEqual(run["changed"], ENTITIES, run)
            time.sleep(0.1)
        print(f"{ENTITIES} entities of {BYTES >> 20} MB, peak as a multiple of one: {found}")
        for pipe, times in found.items():
            self.assertLessEqual(times, TIMES[pipe] + REST / BYTES, f"{pipe}: {found}")


if __name__ == "__main__":
    unittest.main()
