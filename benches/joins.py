#!/usr/bin/env python3
"""Measures joins: a full run of orders that each get their customer, and what one changed customer costs.

    joins.py --tahini PATH [--orders N] [--customers N] [--changes N]

Prints the figures as one JSON object. Ends with 1 where a goal is missed; with fewer orders than a million the goals
are not looked at.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import urllib.request
from pathlib import Path

from node import Node
from run import SEED, WHOLE, Source, expect, free_port

# Entities a second of the full run, and milliseconds of the run that follows one change.
FULL_GOAL, CHANGE_GOAL_MS = 150_000, 20


def write_files(folder, orders, customers):
    chance = random.Random(SEED)

    def write(name, entities):
        with open(folder / f"{name}.json", "w") as file:
            before = "["
            for one in entities:
                file.write(before + json.dumps(one, separators=(",", ":")))
                before = ",\n"
            file.write("]\n")

    write("customers", ({"_id": f"c{n}", "number": n, "name": f"Customer {n}", "city": chance.choice(["Bergen", "Oslo", "Bodø"])} for n in range(customers)))
    # Every customer has the same number of orders.
    numbers = [n % customers for n in range(orders)]
    chance.shuffle(numbers)
    write("orders", ({"_id": f"o{n}", "customer": f"c{of}", "number": of, "amount": chance.randrange(10_000), "state": "paid"} for n, of in enumerate(numbers)))


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
    write_files(folder / "files", options.orders, options.customers)
    source = Source(folder / "files")
    write_project(folder / "project", source.url)
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
                "change_ms": round(statistics.median(changes), 2),
                "change_ms_worst": round(max(changes), 2),
            }
    finally:
        node.stop()
        source.stop()
        shutil.rmtree(folder / "data", ignore_errors=True)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tahini", required=True, type=lambda path: Path(path).resolve())
    parser.add_argument("--orders", type=int, default=WHOLE)
    parser.add_argument("--customers", type=int, default=WHOLE // 10)
    parser.add_argument("--changes", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tahini-joins-") as folder:
        (Path(folder) / "files").mkdir()
        figures = measure(options, Path(folder))
    print(json.dumps(figures, indent=2))
    if options.orders < WHOLE:
        return 0
    slow = [name for name, found in figures.items() if found["full_per_second"] < FULL_GOAL or found["change_ms"] > CHANGE_GOAL_MS]
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
