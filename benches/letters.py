#!/usr/bin/env python3
"""Measures what it takes to set entities aside that cannot be written, and to give them up; writes its part of docs/performance.md.

    letters.py --tahini PATH [--entities N]

A pipe imports N entities over HTTP (source.py) into a dataset that takes none of them: each is larger than its
`max_entity_bytes_size`. The first run sets all of them aside, the second tries each once more and gives it up, a third
one has nothing to do, and the last one brings all of them once more, which are left alone. So what is measured is the
failing, not a target. Prints the figures as one line of JSON. The page is written for a million entities of a clean
commit only. Ends with 1 where memory is missed.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from entities import entities
from node import Node
from page import demand_clean, write_part
from run import SEED, Source, disk_mb, free_port, machine, write_array
from services import built_from

WHOLE = 1_000_000
MEMORY_MB = 300
RUNS = {
    "set aside": "every entity fails and waits",
    "given up": "each is tried once more, fails again, and becomes a dead letter",
    "idle": "a run that has nothing to do, beside them",
    "again": "a rescan that brings all of them again",
}


def write_files(folder, n):
    write_array(folder / "people.json", ({**one, "_updated": place} for place, one in enumerate(entities(n, SEED))))


def write_project(folder, url, n):
    for part in ("pipes", "systems"):
        (folder / part).mkdir(parents=True)
    system = {"_id": "outside", "type": "system:url", "url_pattern": f"{url}/%s"}
    (folder / "systems/outside.conf.json").write_text(json.dumps(system))
    pump = {
        "batch_retries": 0, "max_consecutive_write_errors": 2 * n, "max_write_errors_in_retry_dataset": 2 * n,
        "max_retries_per_entity": 1, "dead_letter_dataset": "letters", "track_dead_letters": True,
    }  # fmt: skip
    source = {"type": "json", "system": "outside", "url": "people", "supports_since": True, "is_chronological": True, "is_since_comparable": True}
    pipe = {"_id": "people", "type": "pipe", "source": source, "sink": {"type": "dataset", "max_entity_bytes_size": 10}, "pump": pump}
    (folder / "pipes/people.conf.json").write_text(json.dumps(pipe))


def expect(what, run, **numbers):
    found = {name: run[name] for name in numbers}
    if found != numbers:
        raise SystemExit(f"{what}: expected {numbers}, found {found}")
    return run


def measure(options, folder):
    n = options.entities
    (folder / "files").mkdir()
    write_files(folder / "files", n)
    source = Source(folder / "files")
    write_project(folder / "project", source.url, n)
    node = Node(options.tahini, folder / "project", folder / "data", free_port())
    found = {}
    try:
        found["set aside"] = expect("set aside", node.run("people"), entities_read=n, failed=n)
        found["given up"] = expect("given up", node.run("people"), entities_read=0, failed=n)
        found["idle"] = expect("idle", node.run("people"), entities_read=0, failed=0)
        found["again"] = expect("again", node.run("people", "start-rescan"), entities_read=n, failed=0)
        found["letters"] = node.ask("/api/datasets/letters")["runtime"]["count-index-exists"]
        if found["letters"] != n:
            raise SystemExit(f"expected {n} dead letters, found {found['letters']}")
    finally:
        node.stop()
        source.stop()
    found["disk_mb"] = disk_mb(folder / "data")
    return found


def figures(options, found):
    """What is printed: a few numbers of each run."""
    told = {"entities": options.entities, "letters": found["letters"], "disk_mb": found["disk_mb"]}
    for name in RUNS:
        run = found[name]
        seconds = float(run["total_time"])
        told[name] = {
            "seconds": round(seconds, 3), "rate": round(options.entities / seconds) if name != "idle" else None,
            "cpu": round(run["cpu"], 2), "syncs": run["syncs"], "written_mb": run["written"] >> 20, "own_mb": run["RssAnon"],
        }  # fmt: skip
    return told


def page(options, told):
    """Our part of docs/performance.md."""
    lines = [
        "## Dead letters", "",
        f"- {built_from(options.tahini)}, release build; {machine()}; `benches/letters.py`",
        f"- {told['entities']:,} entities over HTTP into a dataset that takes none of them (`max_entity_bytes_size`), batches of 100, whole batch first, then one by one; one retry each, a dead-letter dataset that is tracked",
        "", "| run | entities/s | seconds | processor s | syncs | MB to the disk | own memory, peak |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, what in RUNS.items():
        run = told[name]
        rate = f"{run['rate']:,}" if run["rate"] else "–"
        lines.append(f"| {what} | {rate} | {run['seconds']:.2f} | {run['cpu']:.2f} | {run['syncs']:,} | {run['written_mb']:,} | {run['own_mb']} MB |")
    lines += ["", f"The log, which keeps what each attempt said and the entity itself, and the letters take {told['disk_mb']:,} MB on disk.", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tahini", type=Path, required=True)
    parser.add_argument("--entities", type=int, default=WHOLE)
    options = parser.parse_args()
    options.tahini = options.tahini.resolve()
    if options.entities >= WHOLE:
        demand_clean(parser)
    with tempfile.TemporaryDirectory(prefix="tahini-bench-") as folder:
        told = figures(options, measure(options, Path(folder)))
    print(json.dumps(told))
    text = page(options, told)
    print(text, file=sys.stderr)
    if options.entities >= WHOLE:
        write_part("letters", text)
    most = max(told[name]["own_mb"] for name in RUNS)
    if most >= MEMORY_MB:
        print(f"missed: expected less than {MEMORY_MB} MB of own memory, found {most} MB", file=sys.stderr)
    return most >= MEMORY_MB


if __name__ == "__main__":
    sys.exit(main())
