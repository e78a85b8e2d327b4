"""The driver of the demo: what it prints, how it ends, and that nothing stays behind."""

import os
import signal
import socket
import subprocess
import sys
import unittest
import uuid
from pathlib import Path

from support import ROOT, ask

import table

STUB = ROOT / "demo" / "tests" / "stub_node.py"
WITHIN_SECONDS = 120


# In the environment of every process that a test starts, and so of what those start.
MARK = f"DEMO_TEST={uuid.uuid4()}"
MARKED = {**os.environ, "DEMO_TEST": MARK.split("=")[1]}


def demo(*options, stub=None):
    """The driver with the stub as its node, to its end."""
    return subprocess.run(
        [sys.executable, ROOT / "demo" / "demo.py", "--tahini", STUB, *options],
        env={**MARKED, **({"STUB": stub} if stub else {})},
        capture_output=True, text=True, timeout=WITHIN_SECONDS,
    )


def left_behind():
    """The command lines of marked processes that still run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if MARK.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # It has ended meanwhile, or is not ours to look at.
    return found


class Driver(unittest.TestCase):
    def tearDown(self):
        self.assertEqual(left_behind(), [])

    def test_all_as_expected_is_0_and_both_tables_are_shown(self):
        ended = demo("--once")
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        self.assertEqual(ended.stdout.count("hubspot-contacts-collect"), 2)
        self.assertRegex(ended.stdout, r"hubspot-contacts-collect +full +250 +250 +0 +0 +\d+\.\d\d s +2024-04-03T13:30:01\.553Z")
        self.assertRegex(ended.stdout, r"hubspot-contacts-collect +incremental +1 +1 +0 +0 .*2026-01-02T03:04:05\.678Z")
        self.assertIn("1 entity changed", ended.stdout)
        self.assertNotIn("hubspot-oslo-customers", ended.stdout)

    def test_one_number_off_is_1_and_named(self):
        ended = demo("--once", stub="number")
        self.assertEqual(ended.returncode, 1)
        self.assertIn("second run: people: read: expected 150, found 151", ended.stderr)

    def test_a_pipe_too_many_is_1(self):
        ended = demo("--once", stub="extra")
        self.assertEqual(ended.returncode, 1)
        self.assertIn("surplus: expected no run", ended.stderr)

    def test_a_truncated_answer_is_1_and_the_pipe_is_named(self):
        ended = demo("--once", "--break", "hubspot-truncate")
        self.assertEqual(ended.returncode, 1)
        self.assertIn("FAILED hubspot-contacts-collect", ended.stdout)

    def test_a_node_that_dies_is_1_with_its_last_lines(self):
        ended = demo("--once", stub="death")
        self.assertEqual(ended.returncode, 1)
        self.assertIn("the stub gives up", ended.stderr)

    def test_no_node_is_1(self):
        ended = subprocess.run(
            [sys.executable, ROOT / "demo" / "demo.py", "--tahini", "/bin/false"],
            env=MARKED, capture_output=True, text=True, timeout=WITHIN_SECONDS,
        )
        self.assertEqual(ended.returncode, 1)
        self.assertIn("ended with code 1", ended.stderr)

    def test_a_taken_port_is_said_and_the_next_is_used(self):
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            taken = holder.getsockname()[1]
            ended = demo("--once", "--port", str(taken))
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertRegex(ended.stdout, rf"Port {taken} is taken; the node listens on \d+\.")

    def test_stand_ins_that_are_up_already_are_no_hindrance(self):
        with socket.socket() as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                holder.bind(("127.0.0.1", 9251))
                holder.listen()
            except OSError:
                pass  # Taken by somebody else: just as good.
            ended = demo("--once")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertIn("The usual port of the stand-in for hubspot is taken", ended.stdout)

    def test_it_stays_up_until_it_is_interrupted_and_stops_everything(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            running = subprocess.Popen(
                [sys.executable, ROOT / "demo" / "demo.py", "--tahini", STUB],
                env=MARKED, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            lines = []
            for line in running.stdout:
                lines.append(line)
                if "Ctrl-C" in line:
                    break
            self.assertEqual(len(left_behind()), 3, "the demo, the stand-ins and the node")
            address = next(line.split()[0] for line in lines if line.rstrip().endswith("the status page"))
            self.assertEqual(ask("GET", address + "readyz").status, 200)
            running.send_signal(number)
            out, err = running.communicate(timeout=WITHIN_SECONDS)
            self.assertEqual((running.returncode, err), (0, ""), out)
            self.assertIn("Stopped.", out)
            with self.assertRaises(OSError):
                ask("GET", address + "readyz")


class Table(unittest.TestCase):
    row = {"pipe": "a", "kind": "full", "read": 1, "changed": 1, "deleted": 0, "failed": 0, "offset": None, "success": True}

    def test_time_and_message_are_not_compared_and_the_rest_is(self):
        found = {**self.row, "time": 1.5, "message": "x"}
        self.assertEqual(table.differences([self.row], [found]), [])
        for name in self.row:
            spoilt = {**found, name: "other"}
            self.assertTrue(table.differences([self.row], [spoilt]), name)

    def test_missing_surplus_and_misplaced_runs_are_told(self):
        other = {**self.row, "pipe": "b"}
        self.assertEqual(table.differences([self.row, other], [self.row]), ["b: expected a run, found none"])
        self.assertEqual(len(table.differences([self.row], [self.row, other])), 1)
        self.assertEqual(len(table.differences([self.row, other], [other, self.row])), 1)

    def test_columns_line_up(self):
        rows = [{**self.row, "time": 0.5, "message": None}, {**self.row, "pipe": "longer", "read": 1000, "time": 12.25, "message": None}]
        lines = table.text_of(rows).splitlines()
        self.assertEqual(lines[2], "a       full     1        1        0       0   0.50 s  -")
        self.assertEqual(lines[3], "longer  full  1000        1        0       0  12.25 s  -")


if __name__ == "__main__":
    unittest.main()
