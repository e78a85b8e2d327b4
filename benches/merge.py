#!/usr/bin/env python3
"""Measures merging three datasets of a million entities, and a thousand changes after that, beside PostgreSQL and
Pathway, and writes its part of docs/performance.md.

    merge.py --tahini PATH [--entities N] [--changes N] [--repeat R] [--without-peers]

Every dataset has everybody, in an order of its own; they are the same by one key. The full run is
measured from its start to its end. The changes are posted to the three datasets, a third to each;
measured is the time from the answer to the first post, which is durable, to the end of the merging
run, whose last commit is. The peers get the same files and the same changes. Ends with 1 where a goal is missed.
With fewer entities than a million, or without peers, nothing is written.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from node import LOOK_EVERY_SECONDS, Node
from page import ROOT, commit, demand_clean, write_part
from run import HERE, SEED, WHOLE, Source, expect, free_port, machine, venv, write_array

SYSTEMS = ("hr", "crm", "erp")
GOALS = {"full_s": 10.0, "changes_ms": 40.0, "syncs": 3, "memory_mb": 500}
ROUNDS = 7
COLD_ROUNDS = 3
PEERS = HERE / "peers/golden"


def person(system, number, phone=None):
    """About 220 bytes of JSON; the systems have the key in common, and some of the rest."""
    return {
        "_id": f"{system}-{number:07}", "ssn": f"{number * 7919 % 100_000_000_000:011}", f"{system}_name": f"Person Number {number}",
        f"{system}_mail": f"person.{number}@example.com", "phone": phone or f"+47 {number:08}", f"{system}_city": f"City {number % 977}",
        f"{system}_active": number % 3 > 0, f"{system}_born": f"19{number % 90 + 10}-0{number % 9 + 1}-1{number % 10}",
    }


def name_of(turn):
    """The file of a round's changes; the peers have the first rounds only, which find files in the page cache."""
    return f"changes-{turn}.json" if turn < ROUNDS else f"cold-{turn}.json"


def write_files(folder, options):
    """The people of each system, and for every round those who change in each."""
    for place, system in enumerate(SYSTEMS):
        order = list(range(options.entities))
        if place:
            random.Random(SEED + place).shuffle(order)
        write_array(folder / f"{system}.json", (person(system, number) for number in order))
    for turn in range(ROUNDS + COLD_ROUNDS):
        numbers = random.Random(SEED * 1000 + turn).sample(range(options.entities), options.changes)
        changes = {system: [person(system, number, phone=f"+47 turn {turn}") for number in numbers[place::3]] for place, system in enumerate(SYSTEMS)}
        (folder / name_of(turn)).write_text(json.dumps(changes))


def write_project(folder, url):
    (folder / "pipes").mkdir(parents=True)
    (folder / "systems").mkdir()
    configs = [{"_id": "outside", "type": "system:url", "url_pattern": f"{url}/%s"}]
    for system in SYSTEMS:
        configs.append({"_id": system, "type": "pipe", "source": {"type": "json", "system": "outside", "url": system}})
        configs.append({"_id": f"{system}-posts", "type": "pipe", "source": {"type": "http_endpoint"}, "sink": {"type": "dataset", "dataset": system}, "metadata": {"durable": True}})
    sides = [[f"{system[0]}.ssn" for system in SYSTEMS]]
    source = {"type": "merge", "version": 2, "datasets": [f"{system} {system[0]}" for system in SYSTEMS], "equality_sets": sides, "identity": "first", "strategy": "compact"}
    configs.append({"_id": "golden", "type": "pipe", "source": source})
    for config in configs:
        kind = "pipes" if config["type"] == "pipe" else "systems"
        (folder / kind / f"{config['_id']}.conf.json").write_text(json.dumps(config))


def wait_for_indexes(node):
    begun = time.monotonic()
    while not all(index["ready"] and index["versions-indexed"] == index["versions-total"] for system in SYSTEMS for index in node.ask(f"/api/datasets/{system}/indexes")):
        time.sleep(LOOK_EVERY_SECONDS)
    return time.monotonic() - begun


class Poster:
    """Posts over one connection, as who posts often does."""

    def __init__(self, node):
        self.connection = http.client.HTTPConnection(node.url.removeprefix("http://"), timeout=60)

    def post(self, path, body, kind):
        self.connection.request("POST", path, body, {"Content-Type": kind})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"expected {path} to be taken, found {answer.status}: {text.decode()}")


def warm(data):
    """Reads every file, so that the system has it in its page cache: some take it from there after half a minute."""
    for path in data.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass


def chill(data):
    """Takes the files out of the page cache, but for pages that are mapped."""
    subprocess.run(["sync"], check=True)
    for path in data.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def change(node, poster, changes, prepare):
    """Posts changes, and merges them: milliseconds from the first answer to the end of the merging run, and syncs."""
    bodies = [(f"/api/receivers/{system}-posts/entities", json.dumps(changes[system]).encode()) for system in SYSTEMS]
    path, count = "/api/pipes/golden/pump", sum(len(some) for some in changes.values())
    before = node.ask(path)["runtime"].get("last-run")
    # What earlier rounds left to do, the indexes above all, is not of this one.
    node.wait_until_quiet()
    prepare()
    quiet = node.spent()
    poster.post(*bodies[0], "application/json")
    begun = time.time()
    for one in bodies[1:]:
        poster.post(*one, "application/json")
    posted = time.time()
    poster.post(path, b"operation=start", "application/x-www-form-urlencoded")
    # Asking takes the processors from what is measured: the run itself says when it ended, by the same clock.
    time.sleep(0.03)
    while True:
        runtime = node.ask(path)["runtime"]
        if not runtime["is-running"] and runtime.get("last-run") != before:
            break
        time.sleep(0.003)
    # Without that of the first post, at whose answer the time begins.
    syncs = node.since(quiet)["syncs"] - 1
    summary = runtime["last-run-summary"]
    if summary["changed"] != count:
        raise SystemExit(f"expected {count} changed, found {summary}")
    started, ended = (datetime.fromisoformat(summary[name]).timestamp() for name in ("start_time", "end_time"))
    node.wait_until_quiet()
    return {
        "ms": (ended - begun) * 1000, "posts_ms": (posted - begun) * 1000, "wait_ms": (started - posted) * 1000,
        "run_ms": (ended - started) * 1000, "syncs": syncs, "later": node.since(quiet)["syncs"] - 1 - syncs,
    }


def turn_of(options, folder, turn):
    data = folder / f"data-{turn}"
    node = Node(options.tahini, folder / "project", data, free_port())
    try:
        for system in SYSTEMS:
            expect(node.run(system), read=options.entities, changed=options.entities)
        waited = wait_for_indexes(node)
        full = expect(node.run("golden"), read=options.entities, changed=options.entities)
        node.wait_until_quiet()
        node.memory.taken()
        poster = Poster(node)
        prepared = [lambda: warm(data)] * ROUNDS + [lambda: chill(data)] * COLD_ROUNDS
        rounds = [change(node, poster, json.loads((folder / "files" / name_of(at)).read_text()), prepare) for at, prepare in enumerate(prepared)]
        after = node.memory.taken()
    finally:
        node.stop()
    shutil.rmtree(data)
    result = {
        "full_s": full["total_time"], "indexes_s": waited, "rounds": rounds[:ROUNDS], "cold": rounds[ROUNDS:], "memory_mb": max(full["RssAnon"], after["RssAnon"]),
        "changes_mb": after["RssAnon"], "mapped_mb": max(full["RssFile"], after["RssFile"]),
    }
    told = {name: middle(result["rounds"], name) for name in rounds[0]} | {"cold_ms": middle(result["cold"], "ms")}
    print(f"turn {turn + 1}: " + ", ".join(f"{name} {value:.2f}" for name, value in {**result, **told}.items() if name not in ("rounds", "cold")), flush=True)
    return result


def middle(rounds, name):
    return statistics.median(one[name] for one in rounds)


def figures(turns):
    """One figure each: the median of the turns, and of all rounds."""
    rounds = [one for turn in turns for one in turn["rounds"]]
    return {
        "full_s": middle(turns, "full_s"), "changes_ms": middle(rounds, "ms"), "worst_ms": max(one["ms"] for one in rounds),
        "posts_ms": middle(rounds, "posts_ms"), "syncs": statistics.median(one.get("syncs", 0) for one in rounds), "worst_syncs": max(one.get("syncs", 0) for one in rounds), "memory_mb": max(turn["memory_mb"] for turn in turns),
    }


def measure_peers(folder):
    """The same with the same files; one server or process each."""
    subprocess.run([str(ROOT / "tests/rig/prepare.sh"), "postgres"], check=True)
    python, found = venv("golden-venv", PEERS / "requirements.txt") / "python", {}
    for name, program in (("PostgreSQL", "postgres.py"), ("Pathway", "pathway_golden.py")):
        done = subprocess.run([str(python), str(PEERS / program), str(folder)], check=True, stdout=subprocess.PIPE, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: {figures([found[name]])}", flush=True)
    return found


def page(options, turns, peers):
    """Our part of docs/performance.md."""
    own, rounds = figures(turns), [one for turn in turns for one in turn["rounds"]]
    lines = [
        "## Golden records", "",
        f"- commit `{commit()}`, release build; {machine()}",
        f"- {options.entities:,} people in each of three datasets, in orders of their own, merged by one key into {options.entities:,}; then {options.changes:,} people change, a third in each dataset, {ROUNDS} times; all tools get the same files and changes, one after the other (`benches/merge.py`, `benches/peers/golden`)",
        "- the time of the changes begins when the first of three writes is acknowledged, and so durable, and ends when the golden records are; syncs are those in between",
        "", "| goal | found | |", "|---|---|---|",
    ]
    words = {"full_s": "full build: less than {} s", "changes_ms": "{:.0f} ms from the first write to the golden records, at most (median)", "syncs": "syncs in that time: at most {} (median)", "memory_mb": "own memory at any time: less than {} MB"}
    for name, goal in GOALS.items():
        lines.append(f"| {words[name].format(goal)} | {own[name]:.1f} | {'reached' if own[name] <= goal else '**not reached**'} |")
    best = min(figures([found])["changes_ms"] for found in peers.values())
    lines += [
        f"| no slower than the peers: {best:.0f} ms | {own['changes_ms']:.1f} | {'reached' if own['changes_ms'] <= best else '**not reached**'} |", "",
        "| | full build, s | changes, ms (median, worst) | of that the other two writes, ms | syncs (median, worst) | memory, MB |", "|---|---|---|---|---|---|",
    ]
    mapped, every = max(turn["mapped_mb"] for turn in turns), ", ".join(f"{one['ms']:.0f}" for one in rounds)
    memory = {"Tahini": f"{own['memory_mb']} own, {mapped} mapped pages of files"}
    for name, found in peers.items():
        memory[name] = f"{found['memory_mb']} own, {found['shared_mb']} shared" if "shared_mb" in found else f"{found['memory_mb']}"
    for name, one in {"Tahini": own, **{name: figures([found]) for name, found in peers.items()}}.items():
        count = "–" if name == "Pathway" else f"{one['syncs']:.0f}, {one['worst_syncs']}"
        title = f"{name} {peers[name]['version']}" if name in peers else name
        lines.append(f"| {title} | {one['full_s']:.1f} | {one['changes_ms']:.1f}, {one['worst_ms']:.1f} | {one['posts_ms']:.1f} | {count} | {memory[name]} |")
    lines += [
        "", f"Of the node's time the run takes {middle(rounds, 'run_ms'):.1f} ms and begins {middle(rounds, 'wait_ms'):.1f} ms after the last answer. "
        f"Execution logs and indexes go to the disk later, when the datasets are quiet, with {middle(rounds, 'later'):.0f} syncs more. "
        f"Every round, ms: {every}.",
    ]
    cold = [one for turn in turns for one in turn["cold"]]
    lines += [
        "", f"Every file of the store is in the page cache when a round begins. With none there but pages that are mapped, the changes take {middle(cold, 'ms'):.0f} ms (median of {len(cold)} further rounds): "
        "what a changed record is merged with lies anywhere in the logs, and is read from the disk.",
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tahini", required=True, type=lambda path: Path(path).resolve())
    parser.add_argument("--entities", type=int, default=WHOLE)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--without-peers", action="store_true")
    options = parser.parse_args()
    whole = options.entities >= WHOLE and options.changes >= 1000 and not options.without_peers
    if whole:
        demand_clean(parser)
    with tempfile.TemporaryDirectory(prefix="tahini-merge-bench-") as folder:
        folder = Path(folder)
        (folder / "files").mkdir()
        write_files(folder / "files", options)
        source = Source(folder / "files")
        try:
            write_project(folder / "project", source.url)
            turns = [turn_of(options, folder, turn) for turn in range(options.repeat)]
        finally:
            source.stop()
        peers = {} if options.without_peers else measure_peers(folder / "files")
    found = figures(turns)
    if whole:
        text = page(options, turns, peers)
        print(text)
        write_part("golden", text)
    short = [f"{name}: expected at most {goal}, found {found[name]:.2f}" for name, goal in GOALS.items() if found[name] > goal]
    for name, peer in peers.items():
        theirs = figures([peer])["changes_ms"]
        if found["changes_ms"] > theirs:
            short.append(f"changes: expected to be no slower than {name}, {theirs:.1f} ms, found {found['changes_ms']:.1f}")
    print(json.dumps(found), "\n".join(short), sep="\n")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
