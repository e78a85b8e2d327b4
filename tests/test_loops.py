"""Flows that feed themselves through systems outside are named by a node that serves; those that settle are not.

Needs the environment variable TAHINI: the path of a built node.
"""

import json
import os
import shutil
import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from nodes import Node, wait
from outside import answer, read_chunks

TAHINI = os.environ["TAHINI"]
QUICK, SLOW = {"schedule_interval": 0.1}, {"schedule_interval": 0.2}
TOLD = "feed themselves"


class Peer:
    """A system that has people and takes people; a restless one makes something else of whom it is given."""

    def __init__(self, people=(), restless=()):
        self.lock = threading.Lock()
        self.people = {id: {"_id": id, "n": 0} for id in people}
        self.restless = set(restless)
        self.reads = self.writes = 0
        peer = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                with peer.lock:
                    peer.reads += 1
                    body = json.dumps(list(peer.people.values())).encode()
                answer(self, 200, body)

            def do_POST(self):
                length = int(self.headers.get("Content-Length") or 0)
                given = json.loads(self.rfile.read(length) if length else read_chunks(self.rfile))
                with peer.lock:
                    peer.writes += len(given)
                    for person in given:
                        peer.take(person)
                answer(self, 200, b"{}")

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_):
                pass  # A node that ends in the middle of an answer is none.

        self.server = Server(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, person):
        id, n = person["_id"], person["n"] + (person["_id"] in self.restless)
        # What is older than what it has it knows already.
        if n >= self.people.get(id, {"n": 0})["n"]:
            self.people[id] = {"_id": id, "n": n}

    def edit(self, id, n):
        with self.lock:
            self.people[id] = {"_id": id, "n": n}

    def rest(self):
        """It does as it is told from now on."""
        with self.lock:
            self.restless.clear()

    def end(self):
        self.server.shutdown()
        self.server.server_close()


def pipe(id, source, sink=None, pump=QUICK):
    return {"_id": id, "type": "pipe", "source": source, "pump": pump, **({"sink": sink} if sink else {})}


def of(system):
    return {"type": "json", "system": system, "url": "people"}


class Loops(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="tahini-loops-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def node(self, pipes, **peers):
        systems = [{"_id": id, "type": "system:url", "url_pattern": f"http://127.0.0.1:{peer.server.server_port}/%s"} for id, peer in peers.items()]
        for peer in peers.values():
            self.addCleanup(peer.end)
        self.running = Node(TAHINI, self.folder, [*systems, *pipes])
        self.addCleanup(self.running.end)
        return self.running.start()

    def told(self, pipe):
        return self.running.json(f"/api/pipes/{pipe}")["runtime"]["feeds-itself"]

    def log(self, pipe):
        entries = self.running.json(f"/api/datasets/system:pump_execution:{pipe}/entities")
        return [entry for entry in entries if entry["event_type"] == "pump-feeds-itself"]

    def exchange(self, a, b):
        """What one has goes to the other as a whole with every run; one way goes more often than the other."""
        return self.node([pipe("a-to-b", of("a"), of("b")), pipe("b-to-a", of("b"), of("a"), pump=SLOW)], a=a, b=b)

    def test_two_systems_that_keep_feeding_one_another_are_named(self):
        a, b = Peer(["ada", "bob", "eve"], restless=["eve"]), Peer()
        node = self.exchange(a, b)
        found = wait("the loop is told", lambda: self.told("b-to-a"))
        self.assertEqual((found["pipes"], found["systems"], found["entities"]), (["a-to-b", "b-to-a"], ["a", "b"], ["eve"]))
        self.assertGreaterEqual(found["rounds"], 10)
        entry = self.log("b-to-a")[0]
        self.assertEqual((entry["pipes"], entry["systems"], entry["entities"], entry["num_entities"]), (["a-to-b", "b-to-a"], ["a", "b"], ["eve"], 1))
        wait("the node's own log tells it", lambda: f"the pipes a-to-b, b-to-a, through a, b {TOLD}: eve went round 10 times" in node.said())
        # As long as it goes on.
        a.rest()
        wait("it is told no longer", lambda: not self.told("b-to-a") and not self.told("a-to-b"))

    def test_systems_that_settle_are_not_named_although_all_is_sent_again_and_again(self):
        a, b = Peer(["ada", "bob"]), Peer(["eve"])
        node = self.exchange(a, b)
        for edit in range(1, 16):
            a.edit("ada", edit)
            wait("the edit comes over", lambda: b.people.get("ada", {}).get("n") == edit)
            seen = b.reads
            wait("what came over was read", lambda: b.reads >= seen + 3)
            # Somebody else changes something when three runs of each found nothing: they have ended
            # when a fourth one begins.
            seen = a.reads, b.reads
            wait("both ways have come to rest", lambda: a.reads >= seen[0] + 4 and b.reads >= seen[1] + 4)
        self.assertEqual(a.people, b.people)
        self.assertGreater(a.writes, 30)
        self.assertEqual((self.told("a-to-b"), self.told("b-to-a"), self.log("a-to-b"), self.log("b-to-a")), (None, None, [], []))
        self.assertNotIn(TOLD, node.said())

    def test_a_loop_through_datasets_and_one_system_is_named_by_what_changes_of_many(self):
        people = [f"p{number:03}" for number in range(300)]
        peer = Peer(people, restless=["p250"])
        signalled = {"type": "dataset", "supports_signalling": True}
        pipes = [
            pipe("collect", of("crm")),
            pipe("global", {**signalled, "dataset": "collect"}, pump=SLOW),
            pipe("share", {**signalled, "dataset": "global"}, of("crm"), pump=SLOW),
        ]
        node = self.node(pipes, crm=peer)
        found = wait("the loop is told", lambda: self.told("share"))
        self.assertEqual((found["pipes"], found["systems"], found["entities"], found["all-entities"]), (["collect", "global", "share"], ["crm"], ["p250"], 1))
        self.assertIn(TOLD, node.said())
        peer.rest()
        wait("it is told no longer", lambda: not any(self.told(pipe) for pipe in ("collect", "global", "share")))


if __name__ == "__main__":
    unittest.main()
