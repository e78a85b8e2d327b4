#!/usr/bin/env python3
"""Works on a node for as long as it is told, and kills it again and again: pipes that import, copy
and gather, posters side by side, full sequences, rescans of all kinds beside runs, a target outside
that refuses some of what it is given, a circuit breaker that trips, compaction, incremental backups
and restores, and readers that follow every dataset. A model knows what must be there.

    tests/soak.py --tahini PATH [--seconds 600] [--seed N] [--keep]

Checked, all the time and in the end:
- what was acknowledged is there: no write is lost;
- offsets only go up, and so do the values of each entity: no version is lost, twice there or in
  another order, also not for a reader that goes on after a kill. Where rescans go on beside runs, a
  run that had asked its source before the rescan did may bring back an older value for a moment;
- a rescan deletes what is gone, and nothing else; a partial one overwrites nothing newer;
- the target outside is given no entity in an older version than before, and in the end everything
  but what it refuses: just that stands among the dead letters, and is named in the log; when the
  target gives in, the letters go;
- what a circuit breaker holds back nobody sees before it is committed, and never when it was rolled
  back;
- every backup restores to a state that the node was in: a prefix, the same moment in all datasets;
- a graceful end is one (code 0), and every start succeeds;
- memory stays where it was, and the disk does not grow with the time.

Ends with a report as JSON and `PASS`, or with what was found and code 1.
"""

import argparse
import bisect
import contextlib
import json
import math
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
from outside import Outside, Source, Target

IDS = 120  # of each poster and of the source
MEMORY = 300 << 20  # bytes that are the node's own
GROWTH = 40 << 20  # bytes by which that may grow while nothing else does
DISK = 300 << 20  # bytes of data, and of backups
POSTERS = {"durable": 3, "soon": 2, "full": 1}
DATASETS = ["import", "beside", "copy", "gather", "guarded", "letters", "durable", "soon", "full"]
BESIDE = ["beside", "copy"]  # rescanned beside runs
STAY = 90  # entities of the source that are never gone
MAY_CHANGE = 40  # entities that a run may change where a circuit breaker looks
CALM = 5  # seconds without kills in the end, however long the last start took
PATIENCE = 60  # seconds in which what must come does, kills included


class Finding(Exception):
    """Something that must not be."""


class Reader:
    """Follows a dataset by its offsets, over every kill, and remembers what it saw."""

    def __init__(self, dataset, stays=lambda id: False, forbidden=(), in_order=True):
        """`stays` tells which ids are never deleted, `forbidden` holds ids and values that nobody may see; without
        `in_order` values may go down, as long as they come to the right ones in the end."""
        self.dataset, self.since, self.generation = dataset, -1, None
        self.stays, self.forbidden, self.in_order, self.back = stays, forbidden, in_order, 0
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
        if not deleted and v < known and not self.in_order:
            self.back += 1
            known = v
        elif not deleted and (v < known or (v == known and not was_deleted)):
            raise Finding(f"{self.dataset}: {id} is {v} at {updated}, and was {known} before")
        if deleted and self.stays(id):
            raise Finding(f"{self.dataset}: {id} is deleted at {updated}, and never went")
        if (id, v) in self.forbidden:
            raise Finding(f"{self.dataset}: {id} is seen as {v} at {updated}, which the circuit breaker held back")
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
        self.source = Source(random.Random(seed + 1), [f"s{at}" for at in range(IDS)])
        self.bursts, self.target = Source(random.Random(seed + 2), [f"g{at}" for at in range(IDS)]), Target()
        self.outside = Outside({"things": self.source, "bursts": self.bursts}, self.target)
        self.node = Node(tahini, folder, self.components())
        # What a circuit breaker holds back, or held back until it was rolled back: ids with their values.
        self.held = set()
        self.readers = {name: Reader(name, self.stays(name), self.held, name not in BESIDE) for name in DATASETS}
        # By receiver and id: what was acknowledged, in a lock of its own.
        self.acknowledged = {name: {} for name in POSTERS}
        # The last full sequence that was acknowledged, and whether a later one may have ended.
        self.whole, self.ending = 0, False
        self.lock = threading.Lock()
        self.over = threading.Event()
        # When the last kill was over: memory can be compared from then on.
        self.calm_since = math.inf
        self.findings, self.counts, self.memory = [], dict.fromkeys(["posts", "repeated", "restarts_of_sequences", "kills", "stops", "backups", "restores", "read", "rescans", "committed", "rolled_back", "revived"], 0), []

    @staticmethod
    def stays(name):
        """Which ids of a dataset are never deleted."""
        if name in ("import", "beside", "copy"):
            return lambda id: int(id[1:]) < STAY
        return lambda id: name not in ("letters", "full")

    def components(self):
        inbox = lambda name, **more: {"_id": name, "type": "pipe", "source": {"type": "http_endpoint"}, "compaction": {"keep_versions": 1}, **more}
        pipe = lambda name, source, interval, **more: {"_id": name, "type": "pipe", "source": source, "pump": {"schedule_interval": interval, **more.pop("pump", {})}, **more}
        outside = lambda url, in_order=True: {"type": "json", "system": "outside", "url": url, "supports_since": True, "is_chronological": in_order}
        dataset = lambda name: {"type": "dataset", "dataset": name, "supports_signalling": True}
        system = lambda name, url: {"_id": name, "type": "system:url", "url_pattern": url}
        retries = {"batch_retries": 0, "max_consecutive_write_errors": 100_000, "max_write_errors_in_retry_dataset": 100_000, "max_retries_per_entity": 2, "dead_letter_dataset": "letters", "track_dead_letters": True}
        twice = {"type": "dtl", "rules": {"default": [["copy", "*"], ["add", "twice", ["*", 2, "_S.v"]]]}}
        return [
            system("outside", self.outside.gives), system("target", self.outside.takes),
            pipe("import", outside("things"), 0.5, pump={"partial_rescan_run_count": 3, "partial_rescan_delta": 100}),
            pipe("beside", outside("things", in_order=False), 0.7, enable_background_rescan=True),
            pipe("copy", dataset("import"), 2, transform=twice, enable_background_rescan=True, batch_size=10, checkpoint_interval=1),
            pipe("gather", dataset("durable"), 1),
            pipe("guarded", outside("bursts"), 0.3, sink={"type": "dataset", "circuit_breaker_threshold_count": MAY_CHANGE}),
            pipe("push", {"type": "dataset", "dataset": "import"}, 1, sink={"type": "json", "system": "target", "url": "take"}, batch_size=10, pump=retries),
            inbox("durable", metadata={"durable": True}), inbox("soon"), inbox("full"),
        ]  # fmt: skip

    # ---- what goes on side by side --------------------------------------------------------------

    def run(self):
        self.node.start()
        work = [self.changes, self.full_sequences, self.reads, self.backups, self.kills, self.watches, self.rescans, self.breakers, self.moods]
        work += [lambda name=name, at=at: self.posts(name, at) for name in ("durable", "soon") for at in range(POSTERS[name])]
        threads = [threading.Thread(target=self.guarded, args=(job,), daemon=True) for job in work]
        for thread in threads:
            thread.start()
        until = self.begun + self.seconds
        while not self.findings and time.monotonic() < max(until, self.calm_since + CALM):
            time.sleep(0.2)
            self.findings.extend(self.target.wrong[:5])
        self.over.set()
        for thread in threads:
            thread.join(2 * PATIENCE)
            if thread.is_alive():
                self.findings.append("something hangs")
        if not self.findings:
            self.guarded(self.check_the_end)
        self.node.end()
        self.outside.end()

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
            if self.dice.random() < 0.01:
                self.source.drop(f"s{self.dice.randrange(STAY, IDS)}")

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

    def rescans(self):
        """All kinds that somebody can ask for; partial ones come by themselves."""
        dice = random.Random(self.dice.random())
        while not self.over.wait(dice.uniform(0.2, 1.5)):
            pipe = dice.choice(["import", "beside", "copy", "gather", "guarded", "push"])
            operation = dice.choices(["start-rescan", "reset-rescan", "stop"], [8, 1, 1])[0]
            with contextlib.suppress(Gone):
                status, text = self.node.operate(pipe, operation)
                self.counts["rescans"] += status == 200 and operation == "start-rescan"
                # Something else is under way, or a circuit breaker has tripped.
                if status not in (200, 409):
                    raise Finding(f"{operation} of {pipe}: {status} {text[:300]}")

    def moods(self):
        """Now and then the target takes everything, and what was given up is tried again."""
        dice = random.Random(self.dice.random())
        while not self.over.wait(dice.uniform(2, 6)):
            self.target.refusing = False
            revived, tries = False, 0
            while not revived and tries < 50 and not self.over.wait(0.02):
                with contextlib.suppress(Gone):
                    # Refused while the pipe runs.
                    revived = self.node.operate("push", "retry-dead-letters")[0] == 200
                tries += 1
            self.counts["revived"] += revived
            self.over.wait(dice.uniform(0.2, 2))
            self.target.refusing = True

    def breakers(self):
        """Changes a few entities of the guarded pipe's source, and now and then too many at once. What has begun is
        ended here whatever the time is."""
        dice = random.Random(self.dice.random())
        self.arrives(self.bursts.change(self.bursts.ids[:5]))
        self.until("guarded is populated", lambda: self.node.json("/api/datasets/guarded")["runtime"]["populated"])
        turn = 0
        both = lambda: self.counts["committed"] and self.counts["rolled_back"]
        # However slow the machine is, each way is gone once.
        while not self.findings and not (self.over.is_set() and both()):
            self.arrives(self.bursts.change(dice.sample(self.bursts.ids, dice.randint(1, 5))))
            if dice.random() < 0.5:
                turn += 1
                self.trips(dice.sample(self.bursts.ids, dice.randint(MAY_CHANGE + 1, IDS)), commit=turn % 2 == 1)

    def trips(self, ids, commit):
        before, values = self.bursts.burst(ids, lambda values: self.held.update(values.items()))
        self.until("the circuit breaker trips", self.is_tripped)
        self.until("what is held back is there for who asks", lambda: self.node.latest("guarded", uncommitted="true").items() >= values.items())
        if commit:
            self.held.difference_update(values.items())
        else:
            self.bursts.take_back(before)
        form = f"operation={'commit' if commit else 'rollback'}-circuit-breaker"

        def decided():
            self.node.ask("POST", "/api/datasets/guarded", form, "application/x-www-form-urlencoded")
            return not self.is_tripped()

        self.until("the circuit breaker is reset", decided)
        self.counts["committed" if commit else "rolled_back"] += 1
        if commit:
            self.arrives(values)

    def is_tripped(self):
        return self.node.json("/api/datasets/guarded")["runtime"]["circuit-breaker"]["tripped"]

    def arrives(self, values):
        self.until("changes come to guarded", lambda: self.node.latest("guarded").items() >= values.items())

    def until(self, what, done):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not self.findings:
            with contextlib.suppress(Gone, AssertionError):
                if done():
                    return
            time.sleep(0.05)
        if not self.findings:
            raise Finding(f"expected that {what}, which did not come about in {PATIENCE} s")

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
            if not self.counts["kills"] or self.dice.random() < 0.75:
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
        self.calm_since = time.monotonic()

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
                self.memory.append((time.monotonic() - self.begun, time.monotonic() >= self.calm_since, self.node.memory()))

    # ---- the end --------------------------------------------------------------------------------

    def check_the_end(self):
        node = self.node
        self.rescan_all()
        for pipe in ("import", "beside", "copy", "gather", "guarded"):
            self.settle(pipe)
        self.check_refused()
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
        for name in ("import", "beside"):
            if node.latest(name) != self.source.values():
                raise Finding(f"{name} is not what the source has: {difference(node.latest(name), self.source.values())}")
        if node.latest("guarded") != self.bursts.values():
            raise Finding(f"guarded is not what its source has: {difference(node.latest('guarded'), self.bursts.values())}")
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
        self.counts["brought_back"] = sum(reader.back for reader in self.readers.values())
        self.check_sizes()
        if (code := node.stop()) != 0:
            raise Finding(f"the last end has the code {code}")

    def rescan_all(self):
        """Everything that is gone is deleted."""
        for pipe in ("import", "beside", "copy"):
            self.until(f"{pipe} is rescanned", lambda: self.node.operate(pipe, "start-rescan")[0] == 200)

            def ended():
                runtime = self.node.json(f"/api/pipes/{pipe}/pump")["runtime"]
                rescan = runtime.get("rescan") or {}
                return not (runtime["is-running"] or rescan.get("is-running") or rescan.get("is-unfinished"))

            self.until(f"the rescan of {pipe} ends", ended)

    def check_refused(self):
        """Just what the target refuses stands among the dead letters, and goes when the target gives in."""
        self.settle("push")
        self.until("no entity waits", lambda: self.node.run("push") and "waits" not in self.failed().values())
        wanted, letters, failed = self.node.latest("import"), self.node.latest("letters"), self.failed()
        refused = {id: v for id, v in wanted.items() if self.target.values.get(id) != v}
        self.counts.update(target_taken=self.target.taken, target_refused=self.target.refused, letters=len(letters))
        if wrong := {id: v for id, v in refused.items() if not Target.refuses(id, v)}:
            raise Finding(f"the target would take these and has not got them: {dict(list(wrong.items())[:5])}")
        if letters != refused:
            raise Finding(f"dead letters are not what was refused: {difference(letters, refused)}")
        if failed != dict.fromkeys(refused, "dead"):
            raise Finding(f"the log names other entities than were refused: {difference(failed, refused)}")
        self.target.refusing = False
        if refused:
            self.until("dead letters are retried", lambda: self.node.operate("push", "retry-dead-letters")[0] == 200)
        self.until("dead letters go", lambda: self.node.run("push") and not self.node.latest("letters"))
        if self.target.values != wanted or self.failed():
            raise Finding(f"the target gave in and has not got everything: {difference(self.target.values, wanted)}, {self.failed()}")
        if self.target.wrong:
            raise Finding("; ".join(self.target.wrong[:5]))

    def failed(self):
        """What the log of the pipe to the target says last of each entity that failed and did not get through."""
        entries = self.node.entities(urllib.parse.quote("system:pump_execution:push"), history="false", deleted="false")
        errors = [entry for entry in entries if entry["event_type"] == "write-error" and not entry["resolved"]]
        return {entry["entity"]["_id"]: "dead" if entry["dead"] else "waits" for entry in errors}

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


def difference(found, wanted):
    """The first entities that differ: what they are, and what they should be."""
    differing = [id for id in found.keys() | wanted.keys() if found.get(id) != wanted.get(id)]
    return {id: (found.get(id), wanted.get(id)) for id in sorted(differing)[:5]}


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
    idle = [what for what in ("posts", "kills", "backups", "restores", "read", "rescans", "committed", "rolled_back", "letters") if not soak.counts.get(what)]
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
