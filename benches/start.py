#!/usr/bin/env python3
"""Measures how long a whole node takes to start, also after kill -9, and writes its part of docs/performance.md.

    start.py --tahini PATH [--entities N] [--pipes N] [--repeat R] [--store STORE-FIGURES]

Half of the pipes are receivers, the others read their datasets; all datasets together hold N entities, written by
`crates/store/examples/figures.rs`. The node runs with its schedules. Before each kill every receiver takes some
entities, so that logs have ends that no index knows, and the other pipes are in the middle of bringing them on.
Prints the figures as one line of JSON. The page is written for 30,000,000 entities in 1,000 pipes of a clean commit.
Ends with 1 where a goal is missed.
"""

import argparse
import concurrent.futures
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from node import LOOK_EVERY_SECONDS, OPENER, Memory
from page import demand_clean, write_part
from run import disk_mb, free_port, machine
from services import built_from
from store import build

WHOLE, PIPES, REPEAT = 30_000_000, 1_000, 3
GOAL_SECONDS = 2.0
POSTED = 20  # entities to each receiver before a kill
PATIENCE_SECONDS = 600


class Started:
    """The binary, started, and how long it took."""

    def __init__(self, tahini, folder, pipes):
        port = free_port()
        self.url, self.pipes = f"http://127.0.0.1:{port}", pipes
        environment = {**os.environ, "TAHINI_MASTER_KEY_FILE": str(folder / "master.key")}
        self.log = (folder / "node.log").open("ab")
        command = [str(tahini), "serve", "--data", str(folder / "data"), "--listen", f"127.0.0.1:{port}", str(folder / "project")]
        begun = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=environment)
        self.wait("/readyz", begun)
        self.ready = time.monotonic() - begun
        listed = json.loads(self.wait("/api/pipes", begun))
        self.listed = time.monotonic() - begun
        found = sum(1 for pipe in listed if pipe["_id"].startswith("d"))
        if found != pipes:
            raise SystemExit(f"expected {pipes} pipes to be listed, found {found}")
        self.memory = Memory(self.process.pid)

    def wait(self, path, begun):
        while time.monotonic() - begun < PATIENCE_SECONDS and self.process.poll() is None:
            try:
                return self.ask(path)
            except OSError:
                time.sleep(LOOK_EVERY_SECONDS / 4)  # Not listening yet, or not ready.
        raise SystemExit(f"the node did not become ready; its log: {Path(self.log.name).read_text()[-2000:]}")

    def ask(self, path, body=None, kind="application/json"):
        request = urllib.request.Request(self.url + path, body, {"Content-Type": kind})
        with OPENER.open(request, timeout=60) as answer:
            return answer.read()

    def operate(self, pipe, operation):
        """Whether it was done; something else may be under way."""
        try:
            self.ask(f"/api/pipes/{pipe}/pump", urllib.parse.urlencode({"operation": operation}).encode(), "application/x-www-form-urlencoded")
            return True
        except urllib.error.HTTPError as error:
            if error.code == 409:
                return False
            raise SystemExit(f"{operation} of {pipe}: {error} {error.read()[:300]}") from error

    def post(self, turn):
        """Something new for every receiver."""
        def one(at):
            entities = [{"_id": f"crm-person:{number}", "turn": turn} for number in range(turn * POSTED, (turn + 1) * POSTED)]
            self.ask(f"/api/receivers/d{at}/entities", json.dumps(entities).encode())
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(self.pipes // 2)))

    def ended(self, how):
        self.process.send_signal(how)
        self.process.wait(PATIENCE_SECONDS)
        self.log.close()


def write_project(folder, pipes):
    (folder / "pipes").mkdir(parents=True)
    for at in range(pipes):
        half = pipes // 2
        source = {"type": "http_endpoint"} if at < half else {"type": "dataset", "dataset": f"d{at - half}"}
        (folder / f"pipes/d{at}.conf.json").write_text(json.dumps({"_id": f"d{at}", "type": "pipe", "source": source}))


def fill(figures, folder, options):
    rows = options.entities // options.pipes
    command = [str(figures), "datasets", str(folder / "data"), f"datasets={options.pipes}", f"rows={rows}", "versions=1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return rows * options.pipes


def measure(options, folder):
    entities = fill(options.store or build(), folder, options)
    write_project(folder / "project", options.pipes)
    node = Started(options.tahini, folder, options.pipes)
    # What was there before the pipes were is not brought on.
    for at in range(options.pipes // 2, options.pipes):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not node.operate(f"d{at}", "set-last-seen-to-end"):
            node.operate(f"d{at}", "stop")
            if time.monotonic() > deadline:
                raise SystemExit(f"pipe d{at} does not come to rest")
    node.post(0)
    found = {"entities": entities, "pipes": options.pipes, "ended": [], "killed": [], "own_mb": 0}
    for turn in range(1, options.repeat + 1):
        for name, how in (("ended", signal.SIGTERM), ("killed", signal.SIGKILL)):
            node.post(turn)
            node.ended(how)
            node = Started(options.tahini, folder, options.pipes)
            found[name].append([round(node.ready, 3), round(node.listed, 3)])
            print(f"turn {turn}, {name}: ready after {node.ready:.2f} s, pipes listed after {node.listed:.2f} s", file=sys.stderr, flush=True)
            time.sleep(5)  # What a start leaves to be done is the next one's otherwise.
            found["own_mb"] = max(found["own_mb"], node.memory.peak["RssAnon"])
    found["disk_mb"] = disk_mb(folder / "data")
    node.ended(signal.SIGTERM)
    return found


def seconds(found, name):
    """The median until all pipes are listed."""
    return statistics.median(listed for _, listed in found[name])


def page(options, found):
    """Our part of docs/performance.md."""
    lines = [
        "## Starting a whole node", "",
        f"- {built_from(options.tahini)}, release build; {machine()}; `benches/start.py`",
        f"- {found['pipes']:,} pipes, half of them receivers, the others from their datasets to datasets of their own, with their schedules; {found['entities']:,} entities in {found['pipes']:,} datasets, {found['disk_mb']:,} MB on disk; {POSTED} new entities for each receiver before each end, files in the page cache",
        "", "| start after | ready (median) | all pipes listed (median) | seconds until that, every start | goal | |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, title in (("ended", "a graceful end"), ("killed", "kill -9")):
        ready, listed = statistics.median(one for one, _ in found[name]), seconds(found, name)
        reached = "reached" if listed <= GOAL_SECONDS else "**not reached**"
        lines.append(f"| {title} | {ready:.2f} s | {listed:.2f} s | {', '.join(f'{one:.2f}' for _, one in found[name])} | {GOAL_SECONDS:.0f} s | {reached} |")
    lines += ["", f"Own memory while pipes bring on what came: at most {found['own_mb']} MB.", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tahini", type=Path, required=True)
    parser.add_argument("--entities", type=int, default=WHOLE)
    parser.add_argument("--pipes", type=int, default=PIPES)
    parser.add_argument("--repeat", type=int, default=REPEAT)
    parser.add_argument("--store", type=Path, help="the built example `figures` of crates/store, which is built otherwise")
    options = parser.parse_args()
    options.tahini = options.tahini.resolve()
    whole = options.entities >= WHOLE and options.pipes >= PIPES and options.repeat >= REPEAT
    if whole:
        demand_clean(parser)
    with tempfile.TemporaryDirectory(prefix="tahini-bench-") as folder:
        found = measure(options, Path(folder))
    print(json.dumps(found))
    text = page(options, found)
    print(text, file=sys.stderr)
    if whole:
        write_part("start", text)
    missed = [name for name in ("ended", "killed") if seconds(found, name) > GOAL_SECONDS]
    for name in missed:
        print(f"missed: expected a start within {GOAL_SECONDS:.0f} s ({name}), found {seconds(found, name):.2f} s", file=sys.stderr)
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
