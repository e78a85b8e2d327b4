#!/usr/bin/env python3
"""Measures the import of a million entities over HTTP, and writes docs/performance.md.

    run.py --tahini PATH [--entities N] [--repeat R] [--without-dlt] [--without-fjall]

The page is written by a whole measurement of a clean commit only: with fewer entities than a
million, or without a peer, the figures are printed. Ends with 1 where a goal is missed.
"""

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from entities import entities
from node import Node
from page import ROOT, commit, demand_clean, write_page

HERE = Path(__file__).resolve().parent
SEED = 42
WHOLE = 1_000_000


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Source:
    """source.py on a folder of files."""

    def __init__(self, folder):
        self.process = subprocess.Popen([sys.executable, str(HERE / "source.py"), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def stop(self):
        self.process.stdin.close()
        self.process.wait(10)


def write_array(path, entities):
    """A JSON array with an entity on each line."""
    with open(path, "w") as file:
        before = "["
        for one in entities:
            file.write(before + json.dumps(one, separators=(",", ":")))
            before = ",\n"
        file.write("]\n")


def venv(name, requirements):
    """The programs of an environment of its own: made once for what a file wants."""
    folder, wanted = ROOT / ".cache" / name, requirements.read_text()
    made = folder / ".made-from"
    if not made.exists() or made.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(folder / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)], check=True)
        made.write_text(wanted)
    return folder / "bin"


def write_files(folder, n):
    """people: ids in order; shuffled: in random order; followed: with `_updated`, for continuation."""
    last = {}

    def followed():
        nonlocal last
        for place, one in enumerate(entities(n, SEED)):
            last = one
            yield {**one, "_updated": place}

    write_array(folder / "people.json", entities(n, SEED))
    write_array(folder / "shuffled.json", entities(n, SEED, shuffle=True))
    write_array(folder / "followed.json", followed())
    changed = {**last, "city": "Changed", "_updated": n}
    (folder / "followed.later.json").write_text(json.dumps([changed]))


def write_project(folder, url):
    """Three pipes from the source into datasets; every setting but `supports_since` is the default."""
    (folder / "pipes").mkdir(parents=True)
    (folder / "systems").mkdir()
    system = {"_id": "outside", "type": "system:url", "url_pattern": f"{url}/%s"}
    (folder / "systems/outside.conf.json").write_text(json.dumps(system))
    for name in ("people", "shuffled", "followed"):
        source = {"type": "json", "system": "outside", "url": name}
        if name == "followed":
            source |= {"supports_since": True, "is_chronological": True, "is_since_comparable": True}
        (folder / f"pipes/{name}.conf.json").write_text(json.dumps({"_id": name, "type": "pipe", "source": source}))


def measure(options, folder, source):
    """Every run's figures: name of the measurement → list of runs."""
    project = folder / "project"
    write_project(project, source.url)
    results = {name: [] for name in NAMES}
    for turn in range(options.repeat):
        data = folder / f"data-{turn}"
        node = Node(options.tahini, project, data, free_port())
        try:
            results["first"].append(expect(node.run("people"), read=options.entities, changed=options.entities))
            results["again"].append(expect(node.run("people"), read=options.entities, changed=0))
            results["shuffled"].append(expect(node.run("shuffled"), read=options.entities, changed=options.entities))
            results["shuffled again"].append(expect(node.run("shuffled"), read=options.entities, changed=0))
            results["changes"].append(expect_answer(node.read("/api/datasets/people/entities?since=0")))
            results["first"][-1]["storage_mb"] = max(disk_mb(dataset) for dataset in (data / "datasets").iterdir())
            expect(node.run("followed"), read=options.entities, changed=options.entities)
            later = folder / "files/followed.later.json"
            shutil.copy(later, folder / "files/followed.changes.json")
            results["one change"].append(expect(node.run("followed"), read=1, changed=1))
            (folder / "files/followed.changes.json").unlink()
        finally:
            node.stop()
        results["first"][-1]["disk_mb"] = disk_mb(data)
        shutil.rmtree(data)
        print(f"turn {turn + 1}: " + ", ".join(f"{name} {runs[-1]['total_time']:.3f} s" for name, runs in results.items()), flush=True)
    return results


def expect(run, read, changed):
    """A figure of a run that did not do the work means nothing."""
    found = run["entities_read"], run["changed"]
    if found != (read, changed):
        raise SystemExit(f"expected {read} read and {changed} changed, found {found[0]} and {found[1]}")
    run["total_time"] = float(run["total_time"])
    return run


def expect_answer(answer):
    if answer["status"] != 200:
        raise SystemExit(f"expected the dataset's changes, found status {answer['status']}")
    return answer


def disk_mb(folder):
    return sum(f.stat().st_blocks * 512 for f in Path(folder).rglob("*") if f.is_file()) >> 20


def measure_dlt(folder, source):
    """The same import by dlt into DuckDB, in an environment of its own."""
    python = venv("bench-venv", HERE / "requirements.txt") / "python"
    own = folder / "dlt"
    own.mkdir()
    done = subprocess.run([str(python), str(HERE / "dlt_import.py"), f"{source.url}/people", str(own)], check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def machine():
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) >> 20
    return f"{cpu}, {os.cpu_count()} cores, {memory} GiB of memory, Linux {platform.release()}"


def measure_fjall(folder):
    """The least that a program does with fjall: parse, hash, look up, put; its own figures."""
    peers = HERE / "peers"
    subprocess.run(["cargo", "build", "--release", "--quiet", "--package", "imports"], cwd=peers, check=True)
    told = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version=1"], cwd=peers, check=True, stdout=subprocess.PIPE)
    binary = Path(json.loads(told.stdout)["target_directory"]) / "release/imports"
    runs = []
    for name in ("people", "shuffled"):
        with open(folder / f"files/{name}.json") as file:
            done = subprocess.run([str(binary), str(folder / f"fjall-{name}")], check=True, stdin=file, stdout=subprocess.PIPE, text=True)
        runs += [{"file": name, **json.loads(line)} for line in done.stdout.splitlines()]
    return runs


def rate(options, runs):
    return options.entities / statistics.median(run["total_time"] for run in runs)


def goals(options, results):
    """What is wanted, what was found, and whether that is enough: a line each."""
    own = max(run["RssAnon"] for runs in results.values() for run in runs)
    disk = max(run["storage_mb"] for run in results["first"])
    change = statistics.median(run["total_time"] for run in results["one change"])
    rows = [(f"{NAMES[name]}: at least {goal:,} entities/s", f"{rate(options, results[name]):,.0f}", rate(options, results[name]) >= goal) for name, goal in GOALS.items()]
    rows += [
        ("an incremental run after one change: less than 0.1 s", f"{change:.3f} s", change < 0.1),
        ("own memory at any time: less than 300 MB", f"{own} MB", own < 300),
        ("a dataset of a million entities on disk, index included: less than 160 MB", f"{disk:.0f} MB", disk < 160),
    ]
    return rows


def missed(options, results, dlt):
    """What the figures fall short of, one line each."""
    short = [f"expected {wanted}, found {found}" for wanted, found, reached in goals(options, results) if not reached]
    if dlt and dlt[0]["rows"] != options.entities:
        short.append("expected dlt to import every entity")
    return short


NAMES = {
    "first": "first import, ids in order",
    "shuffled": "first import, ids in random order",
    "again": "the same import again, nothing changed",
    "shuffled again": "the same in random order",
    "changes": "all changes over HTTP as JSON, one reader",
    "one change": "incremental run after one change",
}
# Entities a second.
GOALS = {"first": 500_000, "shuffled": 250_000, "again": 600_000, "changes": 1_000_000}


def page(options, results, dlt, fjall):
    """The text of docs/performance.md."""
    n = options.entities
    lines = [
        "# Performance", "",
        "Written by `make bench`; every figure is a run of the commit and machine named here.", "",
        f"- commit `{commit()}`, release build",
        f"- {machine()}",
        f"- {n:,} entities from `benches/entities.py`, seed {SEED}: 13 properties, about 321 bytes of JSON each; one JSON array over HTTP on loopback, served from the page cache by a process of its own, which shares the cores and is not counted",
        "- full change tracking, defaults everywhere: durable at every checkpoint, deletion tracking after every full run", "",
        "| goal | found | |", "|---|---|---|",
    ]
    lines += [f"| {wanted} | {found} | {'reached' if reached else '**not reached**'} |" for wanted, found, reached in goals(options, results)]
    lines += [
        "",
        "| what | entities/s (median) | seconds, every run | processor s | with what follows | syncs | MB to the disk | own memory, peak | mapped pages, peak |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, title in NAMES.items():
        lines.append(row(options, name, title, results[name]))
    lines += [
        "",
        f"The three datasets together take {max(r['disk_mb'] for r in results['first'])} MB on disk, execution logs and index included. Seconds are the run's own `total_time`, from before the source is asked until the last write is durable. "
        "What follows is what the node does once the run has ended: about a million changed ids stay in memory and in the log until a dataset is quiet for a second, and then go to its index in one piece.",
    ]
    if fjall:
        lines += ["", "## Beside it: the least that a program does with fjall", "", "The same file from the page cache, a line an entity: parsed, hashed, looked up by id, and put where the hash differs (`benches/peers/imports`); made durable every 10,000 entities. No HTTP, no versions, no deletion tracking.", "", "| run | entities/s | seconds | processor s |", "|---|---|---|---|"]
        lines += [f"| {run['file']}, {run['run']} | {n / run['seconds']:,.0f} | {run['seconds']:.2f} | {run['cpu']:.2f} |" for run in fjall]
    if dlt:
        lines += ["", "## Beside it: dlt into DuckDB", "", f"The same array over the same HTTP server, merged by `_id` with parquet files (`benches/dlt_import.py`, {versions()}). It detects no unchanged rows and keeps no versions.", "", "| run | rows | entities/s | seconds | peak memory |", "|---|---|---|---|---|"]
        lines += [f"| {run['run']} | {run['rows']:,} | {n / run['seconds']:,.0f} | {run['seconds']} | {run['peak_mb']} MB |" for run in dlt]
    return "\n".join(lines) + "\n"


def row(options, name, title, runs):
    one = name == "one change"
    every = ", ".join(f"{r['total_time']:.3f}" if one else f"{r['total_time']:.2f}" for r in runs)
    median = {key: statistics.median(r.get(key, r["cpu"]) for r in runs) for key in ("cpu", "cpu_whole", "syncs", "written")}
    cells = [
        title, "–" if one else f"{rate(options, runs):,.0f}", every, f"{median['cpu']:.2f}", f"{median['cpu_whole']:.2f}", f"{median['syncs']:.0f}",
        f"{median['written'] / 1e6:.0f}", f"{max(r['RssAnon'] for r in runs)} MB", f"{max(r['RssFile'] for r in runs)} MB",
    ]
    return f"| {' | '.join(cells)} |"


def versions():
    return ", ".join(line.replace("==", " ") for line in (HERE / "requirements.txt").read_text().splitlines() if "==" in line)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tahini", required=True, type=lambda path: Path(path).resolve())
    parser.add_argument("--entities", type=int, default=WHOLE)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--without-dlt", action="store_true")
    parser.add_argument("--without-fjall", action="store_true")
    options = parser.parse_args()
    whole = options.entities >= WHOLE and not options.without_dlt and not options.without_fjall
    if whole:
        demand_clean(parser)
    with tempfile.TemporaryDirectory(prefix="tahini-bench-") as folder:
        folder = Path(folder)
        (folder / "files").mkdir()
        print(f"writing {options.entities:,} entities, three times", flush=True)
        write_files(folder / "files", options.entities)
        source = Source(folder / "files")
        try:
            results = measure(options, folder, source)
            fjall = None if options.without_fjall else measure_fjall(folder)
            dlt = None if options.without_dlt else measure_dlt(folder, source)
        finally:
            source.stop()
    text = page(options, results, dlt, fjall)
    print(text)
    if whole:
        # What other benches write stays, and what people wrote.
        write_page(text)
    short = missed(options, results, dlt)
    print("\n".join(short), file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
