#!/usr/bin/env python3
"""Measures joins: a full run of orders that each get their customer, what one changed customer costs, and the initial
build of an index. Writes its part of docs/performance.md.

    joins.py --tahini PATH [--orders N] [--customers N] [--changes N] [--repeat R] [--versions N,N]

Prints the figures as one JSON object. Ends with 1 where a goal is missed. With fewer orders than a million, or fewer
versions than ten million in the larger index, the goals are not looked at and nothing is written.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from node import Memory, Node
from page import commit, demand_clean, write_part
from run import SEED, WHOLE, Source, expect, free_port, machine, write_array
from store import Figures, build, numbers

# Entities a second of the full run, and milliseconds of the run that follows one change.
FULL_GOAL, CHANGE_GOAL_MS = 150_000, 20
# Versions of the datasets over which an index is built: that it streams shows in the second one's memory.
VERSIONS = [1_000_000, 10_000_000]
TITLES = {"by-id": "by `_id`", "by-key": "by another property, an index"}


def write_files(folder, orders, customers):
    chance = random.Random(SEED)
    write_array(folder / "customers.json", ({"_id": f"c{n}", "number": n, "name": f"Customer {n}", "city": chance.choice(["Bergen", "Oslo", "Bodø"])} for n in range(customers)))
    # Every customer has the same number of orders.
    numbers = [n % customers for n in range(orders)]
    chance.shuffle(numbers)
    write_array(folder / "orders.json", ({"_id": f"o{n}", "customer": f"c{of}", "number": of, "amount": chance.randrange(10_000), "state": "paid"} for n, of in enumerate(numbers)))


def joining(key, other):
    hops = ["hops", {"datasets": ["customers c"], "where": ["eq", f"_S.{key}", f"c.{other}"], "return": "c.name"}]
    return {"default": [["copy", "*"], ["add", "name", ["first", hops]]]}


def write_project(folder, url):
    (folder / "pipes").mkdir(parents=True)
    (folder / "systems").mkdir()
    (folder / "systems/outside.conf.json").write_text(json.dumps({"_id": "outside", "type": "system:url", "url_pattern": f"{url}/%s"}))
    pipes = {name: {"source": {"type": "json", "system": "outside", "url": name}} for name in ("orders", "customers")}
    for name, join in {"by-id": ("customer", "_id"), "by-key": ("number", "number")}.items():
        pipes[name] = {"source": {"type": "dataset", "dataset": "orders"}, "transform": {"type": "dtl", "rules": joining(*join)}}
    for name, pipe in pipes.items():
        (folder / f"pipes/{name}.conf.json").write_text(json.dumps({"_id": name, "type": "pipe", **pipe}))


def post(node, entity):
    request = urllib.request.Request(f"{node.url}/api/datasets/customers/entities", json.dumps([entity]).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def measure(options, folder):
    """Every turn's figures of both joins."""
    write_files(folder / "files", options.orders, options.customers)
    source = Source(folder / "files")
    write_project(folder / "project", source.url)
    try:
        return [turn_of(options, folder) for _ in range(options.repeat)]
    finally:
        source.stop()


def turn_of(options, folder):
    node = Node(options.tahini, folder / "project", folder / "data", free_port())
    figures, each = {}, options.orders // options.customers
    try:
        for name in ("customers", "orders"):
            node.run(name)
        for name in ("by-id", "by-key"):
            full = expect(node.run(name), read=options.orders, changed=options.orders)
            changes = []
            for turn in range(options.changes):
                n = turn * 7 % options.customers
                post(node, {"_id": f"c{n}", "number": n, "name": f"{name} {turn}"})
                changes.append(expect(node.run(name), read=each, changed=each)["total_time"] * 1000)
            figures[name] = {
                "full_per_second": round(options.orders / full["total_time"]),
                "full_seconds": full["total_time"],
                "full_cpu_seconds": full["cpu"],
                "peak_mb": full["RssAnon"],
                "mapped_mb": full["RssFile"],
                "change_ms": round(statistics.median(changes), 2),
                "change_ms_worst": round(max(changes), 2),
            }
    finally:
        node.stop()
        shutil.rmtree(folder / "data", ignore_errors=True)
    print(json.dumps(figures), flush=True)
    return figures


def measure_index(options, folder):
    """An index of a property with a hundred thousand values, built over each number of versions."""
    figures, found = Figures(build(), folder), []
    for versions in options.versions:
        figures.get("load", "index", entities=versions)
        command = figures.command("index", "index", {"finds": 100, "turns": 10})
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        memory = Memory(child.pid)
        told, _ = child.communicate()
        if child.returncode:
            raise SystemExit(f"expected the index to be built, found status {child.returncode}")
        peak = memory.taken()
        found.append({**json.loads(told), "peak_mb": peak["RssAnon"], "peak_mapped_mb": peak["RssFile"]})
        print(json.dumps(found[-1]), flush=True)
        figures.drop("index")
    return found


def medians(turns):
    """For each join the medians of all turns; the worst change and the most memory of all."""
    found = {}
    for name in TITLES:
        each = [turn[name] for turn in turns]
        found[name] = {key: statistics.median(one[key] for one in each) for key in each[0]}
        for key in ("peak_mb", "mapped_mb", "change_ms_worst"):
            found[name][key] = max(one[key] for one in each)
    return found


def page(options, joins, indexes):
    """Our part of docs/performance.md."""
    each = options.orders // options.customers
    lines = [
        "## Joins", "",
        f"- commit `{commit()}`, release build; {machine()}",
        f"- {options.orders:,} orders in random order, each with one of {options.customers:,} customers by `hops`; then one customer changes, {options.changes} times, and its {each} orders go through the pipe again (`benches/joins.py`)", "",
        f"| the customer is found | full run, entities/s (goal {FULL_GOAL:,}) | seconds | processor s | after one change, ms (goal {CHANGE_GOAL_MS}; median, worst) | own memory | mapped pages |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in joins.items():
        lines.append(
            f"| {TITLES[name]} | {found['full_per_second']:,.0f} | {found['full_seconds']:.2f} | {found['full_cpu_seconds']:.2f} "
            f"| {found['change_ms']:.1f}, {found['change_ms_worst']:.1f} | {found['peak_mb']} MB | {found['mapped_mb']} MB |"
        )
    lines += [
        "", "The initial build of an index reads the dataset's log from its first version on:", "",
        "| versions | a second | own memory, peak | mapped pages, peak | log and indexes on disk |", "|---|---|---|---|---|",
    ]
    for found in indexes:
        lines.append(f"| {found['versions']:,} | {found['build_rate']:,} | {found['peak_mb']} MB | {found['peak_mapped_mb']} MB | {found['disk_mb']:,} MB |")
    return "\n".join(lines) + "\n"


def missed(joins):
    """What falls short of the goals, in words."""
    for name, found in joins.items():
        if found["full_per_second"] < FULL_GOAL:
            yield f"{name}: expected {FULL_GOAL:,} entities a second, found {found['full_per_second']:,.0f}"
        if found["change_ms"] > CHANGE_GOAL_MS:
            yield f"{name}: expected {CHANGE_GOAL_MS} ms after one change, found {found['change_ms']:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tahini", required=True, type=lambda path: Path(path).resolve())
    parser.add_argument("--orders", type=int, default=WHOLE)
    parser.add_argument("--customers", type=int, default=WHOLE // 10)
    parser.add_argument("--changes", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--versions", type=numbers, default=VERSIONS)
    options = parser.parse_args()
    whole = options.orders >= WHOLE and options.versions[-1] >= VERSIONS[-1]
    if whole:
        demand_clean(parser)
    with tempfile.TemporaryDirectory(prefix="tahini-joins-") as folder:
        (Path(folder) / "files").mkdir()
        joins = medians(measure(options, Path(folder)))
        indexes = measure_index(options, Path(folder))
    print(json.dumps({"joins": joins, "indexes": indexes}, indent=2))
    if not whole:
        return 0
    text = page(options, joins, indexes)
    print(text)
    write_part("joins", text)
    short = list(missed(joins))
    print("\n".join(short), file=sys.stderr)
    return bool(short)


if __name__ == "__main__":
    sys.exit(main())
