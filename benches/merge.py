#!/usr/bin/env python3
"""Measures merging three datasets of a million entities, and a thousand changes after that.

    merge.py --tahini PATH [--entities N] [--changes N] [--repeat R]

Every dataset has everybody, in an order of its own; they are the same by one key. The full run is
measured from its start to its end. The changes are posted to the three datasets, a third to each;
measured is the time from the answer to the first post, which is durable, to the end of the merging
run, whose last commit is. Ends with 1 where a goal is missed.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from node import LOOK_EVERY_SECONDS, OPENER, Node
from run import SEED, WHOLE, Source, expect, free_port

SYSTEMS = ("hr", "crm", "erp")
GOALS = {"full_s": 10.0, "changes_ms": 40.0, "syncs": 3, "memory_mb": 500}


def person(system, number, phone=None):
    """About 220 bytes of JSON; the systems have the key in common, and some of the rest."""
    return {
        "_id": f"{system}-{number:07}", "ssn": f"{number * 7919 % 100_000_000_000:011}", f"{system}_name": f"Person Number {number}",
        f"{system}_mail": f"person.{number}@example.com", "phone": phone or f"+47 {number:08}", f"{system}_city": f"City {number % 977}",
        f"{system}_active": number % 3 > 0, f"{system}_born": f"19{number % 90 + 10}-0{number % 9 + 1}-1{number % 10}",
    }


def write_files(folder, count):
    for place, system in enumerate(SYSTEMS):
        order = list(range(count))
        if place:
            random.Random(SEED + place).shuffle(order)
        with (folder / f"{system}.json").open("w") as file:
            before = "["
            for number in order:
                file.write(before + json.dumps(person(system, number), separators=(",", ":")))
                before = ",\n"
            file.write("]\n")


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


def post(node, system, people):
    body = json.dumps(people).encode()
    asked = urllib.request.Request(f"{node.url}/api/receivers/{system}-posts/entities", body, {"Content-Type": "application/json"})
    with OPENER.open(asked, timeout=60) as answer:
        answer.read()


def change(node, count, turn, options):
    """Posts changes, and merges them: seconds from the first answer to the end of the merging run, and syncs."""
    numbers = random.Random(SEED * 1000 + turn).sample(range(options.entities), count)
    shares = [(system, [person(system, number, phone=f"+47 turn {turn}") for number in numbers[place::3]]) for place, system in enumerate(SYSTEMS)]
    path = "/api/pipes/golden/pump"
    before = node.ask(path)["runtime"].get("last-run")
    first, *others = shares
    post(node, *first)
    spent, begun = node.spent(), time.monotonic()
    for system, people in others:
        post(node, system, people)
    posted = time.monotonic() - begun
    node.ask(path, {"operation": "start"})
    while True:
        runtime = node.ask(path)["runtime"]
        if not runtime["is-running"] and runtime.get("last-run") != before:
            break
        time.sleep(0.001)
    seconds = time.monotonic() - begun
    summary = runtime["last-run-summary"]
    if summary["changed"] != count:
        raise SystemExit(f"expected {count} changed, found {summary}")
    return {"seconds": seconds, "posted": posted, "run": float(summary["total_time"]), "syncs": node.since(spent)["syncs"]}


def turn_of(options, folder, source, turn):
    data = folder / f"data-{turn}"
    node = Node(options.tahini, folder / "project", data, free_port())
    try:
        for system in SYSTEMS:
            expect(node.run(system), read=options.entities, changed=options.entities)
        waited = wait_for_indexes(node)
        full = expect(node.run("golden"), read=options.entities, changed=options.entities)
        node.wait_until_quiet()
        node.memory.taken()
        rounds = [change(node, options.changes, turn * 100 + at, options) for at in range(7)]
        after = node.memory.taken()
    finally:
        node.stop()
    shutil.rmtree(data)
    median = sorted(rounds, key=lambda one: one["seconds"])[len(rounds) // 2]
    result = {
        "full_s": full["total_time"], "full_mb": full["RssAnon"], "indexes_s": waited, "changes_ms": median["seconds"] * 1000,
        "posts_ms": median["posted"] * 1000, "run_ms": median["run"] * 1000, "worst_ms": max(one["seconds"] for one in rounds) * 1000,
        "syncs": median["syncs"], "memory_mb": max(full["RssAnon"], after["RssAnon"]),
    }
    print(f"turn {turn + 1}: " + ", ".join(f"{name} {value:.2f}" for name, value in result.items()), flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tahini", required=True)
    parser.add_argument("--entities", type=int, default=WHOLE)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tahini-merge-bench-") as folder:
        folder = Path(folder)
        (folder / "files").mkdir()
        write_files(folder / "files", options.entities)
        source = Source(folder / "files")
        try:
            write_project(folder / "project", source.url)
            turns = [turn_of(options, folder, source, turn) for turn in range(options.repeat)]
        finally:
            source.stop()
    missed = 0
    for name, goal in GOALS.items():
        found = statistics.median(turn[name] for turn in turns)
        missed += found > goal
        print(f"{name}: {found:.2f}, goal {goal}{'' if found <= goal else ' MISSED'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
