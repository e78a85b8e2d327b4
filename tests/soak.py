#!/usr/bin/env python3
"""Works on a node for as long as it is told, and kills it again and again: pipes that import, copy
and gather, posters side by side, full sequences, compaction, incremental backups and restores, and
readers that follow every dataset. A model knows what must be there.

    tests/soak.py --tahini PATH [--seconds 600] [--seed N] [--keep]

Checked, all the time and in the end:
- what was acknowledged is there: no write is lost;
- offsets only go up, and so do the values of each entity: no version is lost, twice there or in
  another order, also not for a reader that goes on after a kill;
- every backup restores to a state that the node was in: a prefix, the same moment in all datasets;
- a graceful end is one (code 0), and every start succeeds;
- memory stays where it was, and the disk does not grow with the time.

Ends with a report as JSON and `PASS`, or with what was found and code 1.
"""

import argparse
import bisect
import contextlib
import http.server
import json
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse
from pathlib import Path

from nodes import Gone, Node, folder_bytes

IDS = 120  # of each poster and of the source
MEMORY = 300 << 20  # bytes that are the node's own
GROWTH = 40 << 20  # bytes by which that may grow while nothing else does
DISK = 300 << 20  # bytes of data, and of backups
POSTERS = {"durable": 3, "soon": 2, "full": 1}
DATASETS = ["import", "copy", "gather", "durable", "soon", "full"]


class Finding(Exception):
    """Something that must not be."""


class Source:
    """The outside: entities that change all the time, in the order of their changes."""

    def __init__(self, dice):
        self.lock, self.dice = threading.Lock(), dice
        self.latest, self.updated = {}, 0
        source = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                body = source.since(int(query.get("since", ["-1"])[0]))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def change(self):
        with self.lock:
            self.updated += 1
            self.latest[f"s{self.dice.randrange(IDS)}"] = (self.updated, self.updated)

    def since(self, since):
        with self.lock:
            found = sorted((updated, id, v) for id, (updated, v) in self.latest.items() if updated > since)
        return json.dumps([{"_id": id, "_updated": updated, "v": v} for updated, id, v in found]).encode()

    def values(self):
        with self.lock:
            return {id: v for id, (_, v) in self.latest.items()}


class Reader:
    """Follows a dataset by its offsets, over every kill, and remembers what it saw."""

    def __init__(self, dataset):
        self.dataset, self.since, self.generation = dataset, -1, None
        self.values, self.offsets, self.versions = {}, [], []

    def step(self, node, most=2000):
        status, headers, body = node.ask("GET", f"/api/datasets/{self.dataset}/entities?history=true&limit={most}&since={max(self.since, 0)}" if self.since >= 0 else f"/api/datasets/{self.dataset}/entities?history=true&limit={most}")
        if status == 404:
            return 0
        if status != 200:
            raise Finding(f"{self.dataset}: {status} {body[:300]}")
        try:
            entities = json.loads(body)
        except ValueError as error:  # the node was killed in the middle of the answer
            raise Gone(str(error)) from error
        generation = headers["x-dataset-generation"]
        if self.generation not in (None, generation):
            raise Finding(f"{self.dataset}: another generation: {generation} after {self.generation}")
        self.generation = generation
        last = int(headers.get("x-dataset-max-updated", "-1"))
        if last < self.since:
            raise Finding(f"{self.dataset}: ends at {last}, and {self.since} was read before: what was durable is gone")
        for entity in entities:
            self.see(entity)
        return len(entities)

    def see(self, entity):
        id, updated, deleted, v = entity["_id"], entity["_updated"], entity["_deleted"], entity.get("v", -1)
        if updated <= self.since:
            raise Finding(f"{self.dataset}: offset {updated} after {self.since}")
        known, was_deleted = self.values.get(id, (-1, False))
        if not deleted and (v < known or (v == known and not was_deleted)):
            raise Finding(f"{self.dataset}: {id} is {v} at {updated}, and was {known} before")
        self.values[id] = (max(v, known), deleted)
        self.since = updated
        self.offsets.append(updated)
        self.versions.append((id, v, deleted))

    def at(self, offset):
        """What a reader knew at an offset: id to (offset, value, deleted)."""
        known = {}
        for at in range(bisect.bisect_right(self.offsets, offset)):
            id, v, deleted = self.versions[at]
            known[id] = (self.offsets[at], v, deleted)
        return known


class Soak:
    def __init__(self, tahini, folder, seconds, seed):
        self.seconds, self.dice, self.begun = seconds, random.Random(seed), time.monotonic()
        self.source = Source(random.Random(seed + 1))
        self.node = Node(tahini, folder, self.components())
        self.readers = {name: Reader(name) for name in DATASETS}
        # By receiver and id: what was acknowledged, in a lock of its own.
        self.acknowledged = {name: {} for name in POSTERS}
        # The last full sequence that was acknowledged, and whether a later one may have ended.
        self.whole, self.ending = 0, False
        self.lock = threading.Lock()
        self.over, self.calm = threading.Event(), threading.Event()
        self.findings, self.counts, self.memory = [], dict.fromkeys(["posts", "repeated", "kills", "stops", "backups", "restores", "read", "restarts_of_sequences"], 0), []

    def components(self):
        inbox = lambda name, **more: {"_id": name, "type": "pipe", "source": {"type": "http_endpoint"}, "compaction": {"keep_versions": 1}, **more}
        return [
            {"_id": "outside", "type": "system:url", "url_pattern": f"http://127.0.0.1:{self.source.server.server_port}/%s"},
            {"_id": "import", "type": "pipe", "source": {"type": "json", "system": "outside", "url": "things", "supports_since": True, "is_chronological": True}, "pump": {"schedule_interval": 0.5}},
            {"_id": "copy", "type": "pipe", "source": {"type": "dataset", "dataset": "import", "supports_signalling": True}, "transform": {"type": "dtl", "rules": {"default": [["copy", "*"], ["add", "twice", ["*", 2, "_S.v"]]]}}, "pump": {"schedule_interval": 2}},
            {"_id": "gather", "type": "pipe", "source": {"type": "dataset", "dataset": "durable", "supports_signalling": True}, "pump": {"schedule_interval": 1}},
            inbox("durable", metadata={"durable": True}), inbox("soon"), inbox("full"),
        ]  # fmt: skip

    # ---- what goes on side by side --------------------------------------------------------------

    def run(self):
        self.node.start()
        work = [self.changes, self.full_sequences, self.reads, self.backups, self.kills, self.watches]
        work += [lambda name=name, at=at: self.posts(name, at) for name in ("durable", "soon") for at in range(POSTERS[name])]
        threads = [threading.Thread(target=self.guarded, args=(job,), daemon=True) for job in work]
        for thread in threads:
            thread.start()
        until = self.begun + self.seconds
        while time.monotonic() < until and not self.findings:
            time.sleep(0.2)
        self.over.set()
        for thread in threads:
            thread.join(60)
            if thread.is_alive():
                self.findings.append("something hangs")
        if not self.findings:
            self.guarded(self.check_the_end)
        self.node.end()

    def guarded(self, job):
        try:
            job()
        except Finding as finding:
            self.findings.append(str(finding))
        except Exception:
            self.findings.append(traceback.format_exc())

    def left(self):
        return self.seconds - (time.monotonic() - self.begun)

    def changes(self):
        while not self.over.wait(0.004):
            self.source.change()

    def posts(self, name, number):
        """Posts until it is taken, as a system does that must lose nothing; values only go up."""
        dice, v = random.Random(self.dice.random()), 0
        while not self.over.wait(0.004):
            ids = dice.sample(range(IDS), dice.randint(1, 8))
            v += 1
            entities = [{"_id": f"{number}-{at}", "v": v} for at in ids]
            if not self.post(name, entities):
                return
            with self.lock:
                self.acknowledged[name].update((entity["_id"], v) for entity in entities)

    def post(self, name, entities, **parameters):
        """Whether it was taken before the end; a conflict is the sequence's business."""
        while not self.over.is_set():
            try:
                status, text = self.node.post(name, entities, **parameters)
            except Gone:
                self.counts["repeated"] += 1
                self.over.wait(0.02)
                continue
            self.counts["posts"] += 1
            if status == 200:
                return True
            if status == 409:
                return None
            if status != 503:
                raise Finding(f"a post to {name} was refused: {status} {text[:300]}")
            self.over.wait(0.05)
        return False

    def full_sequences(self):
        """Sequences of several requests; what does not come in one is deleted at its end."""
        v, number = 0, 0
        while not self.over.is_set():
            v, number = v + 1, number + 1
            ids = [f"f{at}" for at in range(IDS) if self.dice.random() < 0.8]
            parts = [ids[at : at + 30] for at in range(0, len(ids), 30)]
            previous = None
            for at, part in enumerate(parts):
                more = {"previous_request_id": previous} if previous else {}
                last = at + 1 == len(parts)
                if last:
                    with self.lock:
                        self.ending = True
                done = self.post("full", [{"_id": id, "v": v} for id in part], is_full=True, sequence_id=f"n{number}", request_id=f"{number}-{at}", is_first=at == 0, is_last=last, **more)
                if done is None:
                    # The request was taken and its answer lost, or the sequence is to begin anew.
                    self.counts["restarts_of_sequences"] += 1
                    break
                if not done:
                    return
                previous = f"{number}-{at}"
                if last:
                    with self.lock:
                        self.acknowledged["full"] = {id: v for id in ids}
                        self.whole, self.ending = v, False
            self.over.wait(0.02)

    def reads(self):
        while not self.over.wait(0.05):
            with contextlib.suppress(Gone):
                for reader in self.readers.values():
                    self.counts["read"] += reader.step(self.node)

    def kills(self):
        """Kills until the last quarter of the time, which is calm, so that memory can be compared."""
        long = self.seconds > 120
        while self.left() > max(8, self.seconds / 4) and not self.over.is_set():
            # Some lives are long enough for everything that is done once a minute.
            pause = 75 if long and self.dice.random() < 0.15 else self.dice.uniform(1, 7)
            if self.over.wait(min(pause, max(1, self.left() - self.seconds / 4))):
                return
            if self.dice.random() < 0.75:
                self.node.kill()
                self.counts["kills"] += 1
            else:
                code = self.node.stop()
                self.counts["stops"] += 1
                if code != 0:
                    raise Finding(f"a graceful end has the code {code}:\n{self.node.said()[-2000:]}")
            with self.lock:
                acknowledged = {name: dict(values) for name, values in self.acknowledged.items()}
            self.node.start()
            self.check_acknowledged(acknowledged)
        self.calm.set()

    def check_acknowledged(self, acknowledged):
        for name in ("durable", "soon"):
            found = self.node.latest(name)
            for id, v in acknowledged[name].items():
                if found.get(id, -1) < v:
                    raise Finding(f"{name}: {id} was acknowledged as {v} and is {found.get(id)} after a restart")

    def backups(self):
        turn = 0
        while not self.over.wait(self.dice.uniform(0.5, 2.5)):
            try:
                status, _, body = self.node.ask("POST", "/api/backups", json.dumps({"name": "soak"}))
            except Gone:
                continue
            if status != 200:
                raise Finding(f"no backup: {status} {body[:300]}")
            self.counts["backups"] += 1
            turn += 1
            if turn % 3 == 1:
                self.check_backup()
        if self.counts["restores"] == 0 and self.counts["backups"]:
            self.check_backup()

    def check_backup(self):
        back = self.node.folder / "back"
        shutil.rmtree(back, ignore_errors=True)
        self.node.command("restore", self.node.backups / "soak", "--data", back)
        self.counts["restores"] += 1
        restored = {}
        for name in DATASETS:
            done = self.node.command("entities", name, "--data", back)
            restored[name] = {e["_id"]: e for e in map(json.loads, done.splitlines())}
        for id, entity in restored["gather"].items():
            if entity["v"] > restored["durable"].get(id, {"v": -1})["v"]:
                raise Finding(f"backup: gather has {id} as {entity['v']}, which durable does not have yet")
        for name in DATASETS:
            self.check_prefix(name, restored[name])

    def check_prefix(self, name, restored):
        """Whether the reader of the running node has seen or will see just these versions."""
        reader, until = self.readers[name], max((e["_updated"] for e in restored.values()), default=-1)
        waited = time.monotonic() + 30
        while reader.since < until:
            if time.monotonic() > waited or self.over.is_set():
                return
            time.sleep(0.05)
        seen = reader.at(until)
        for id, entity in restored.items():
            offset, v, deleted = seen.get(id, (-1, -1, False))
            if offset > entity["_updated"] or (offset == entity["_updated"] and (v, deleted) != (entity.get("v", -1), entity["_deleted"])):
                raise Finding(f"backup: {name} has {entity}, and {(offset, v, deleted)} was read")
        lacking = [id for id in seen if id not in restored]
        if lacking:
            raise Finding(f"backup: {name} lacks {lacking[:5]}")

    def watches(self):
        while not self.over.wait(0.5):
            with contextlib.suppress(OSError, ValueError, StopIteration):
                self.memory.append((time.monotonic() - self.begun, self.calm.is_set(), self.node.memory()))

    # ---- the end --------------------------------------------------------------------------------

    def check_the_end(self):
        node = self.node
        for pipe in ("import", "copy", "gather"):
            self.settle(pipe)
        for reader in self.readers.values():
            while reader.step(node):
                pass
        for name in POSTERS:
            found, wanted = node.latest(name), self.acknowledged[name]
            # What was under way when the work ended may be there, too.
            if lost := {id: (v, found.get(id)) for id, v in wanted.items() if found.get(id, -1) < v}:
                # A later full sequence that ended without an answer may have deleted them.
                if name != "full" or not self.ending:
                    raise Finding(f"{name}: acknowledged and lost: {dict(list(lost.items())[:5])}")
        left = {id: v for id, v in node.latest("full").items() if v < self.whole}
        if left:
            raise Finding(f"full: {dict(list(left.items())[:5])} came no more in sequence {self.whole}, and were not deleted")
        if node.latest("import") != self.source.values():
            raise Finding("import is not what the source has")
        if node.latest("copy") != node.latest("import") or node.latest("copy", "twice") != {id: 2 * v for id, v in self.source.values().items()}:
            raise Finding("copy is not what was imported")
        if node.latest("gather") != node.latest("durable"):
            raise Finding("gather is not what was posted")
        for name, reader in self.readers.items():
            latest = {id: v for id, (v, deleted) in reader.values.items() if not deleted}
            if latest != node.latest(name):
                raise Finding(f"{name}: who followed the offsets knows something else than who reads it all")
        if damaged := node.json("/api/status")["damaged_datasets"]:
            raise Finding(f"damaged: {damaged}")
        self.check_sizes()
        if (code := node.stop()) != 0:
            raise Finding(f"the last end has the code {code}")

    def settle(self, pipe):
        """Runs until one run changes nothing; a scheduled run may be under way."""
        for _ in range(50):
            try:
                if self.node.run(pipe)["last-run-summary"]["entities_read"] == 0:
                    return
            except AssertionError:
                time.sleep(0.1)
        raise Finding(f"pipe {pipe} does not come to rest")

    def check_sizes(self):
        calm = [bytes for _, is_calm, bytes in self.memory if is_calm]
        if not calm:
            raise Finding("there was no calm time to look at memory")
        third = max(1, len(calm) // 3)
        early, late = max(calm[:third]), max(calm[-third:])
        self.counts.update(memory_early=early, memory_late=late, memory_most=max(bytes for *_, bytes in self.memory))
        if self.counts["memory_most"] > MEMORY or late > early + GROWTH:
            raise Finding(f"memory: {early} bytes, then {late}, at most {self.counts['memory_most']}")
        self.counts.update(data_bytes=folder_bytes(self.node.data), backup_bytes=folder_bytes(self.node.backups))
        if max(self.counts["data_bytes"], self.counts["backup_bytes"]) > DISK:
            raise Finding(f"disk: {self.counts}")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tahini", required=True, type=Path)
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--seed", type=int, default=None)
    options.add_argument("--keep", action="store_true", help="leave the folder as it is in the end")
    options = options.parse_args()
    seed = random.SystemRandom().randrange(1 << 30) if options.seed is None else options.seed
    folder = tempfile.mkdtemp(prefix="tahini-soak-")
    print(f"seed {seed}, {options.seconds:g} s, in {folder}", flush=True)
    soak = Soak(options.tahini, folder, options.seconds, seed)
    soak.run()
    print(json.dumps({"seed": seed, **soak.counts}, indent=1))
    for finding in soak.findings:
        print(f"FAIL: {finding}")
    if soak.findings:
        print("".join(soak.node.said()[-4000:]))
    idle = [what for what in ("posts", "kills", "backups", "restores", "read") if not soak.counts[what]]
    if idle and not soak.findings:
        print(f"FAIL: there were no {', '.join(idle)}")
    if not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    if soak.findings or idle:
        return 1
    print("PASS")
    return 0


if __name__ == "__main__":
    sys.exit(main())
