#!/usr/bin/env python3
"""Measures the store by itself, and writes its part of docs/performance.md.

    store.py [--entities N] [--curve N,N,…] [--random N] [--datasets N] [--writers N] [--memory MB] [--seconds S]
             [--generated N]

Builds `crates/store/examples/figures.rs` in release mode and runs it once a figure, each in a process of its
own. Prints all figures as one JSON object. The page is written when every size is at least what it publishes.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from entities import entities
from page import ROOT, commit, demand_clean, write_part
from run import SEED, WHOLE, machine

# What is promised: a rate to reach, or seconds to stay under.
POINT_READS, CHANGE_READS, START_SECONDS, DISK_MB = 250_000, 3_000_000, 2.0, 160
CURVE = [1_000_000, 10_000_000, 30_000_000]
GENERATED = 200_000


def build():
    """The binary with all figures."""
    command = ["cargo", "build", "--release", "--quiet", "--package", "tahini-store", "--example", "figures"]
    subprocess.run(command, cwd=ROOT, check=True)
    told = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version=1"], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return Path(json.loads(told.stdout)["target_directory"]) / "release/examples/figures"


class Figures:
    """The binary and the folder that it works in."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder

    def command(self, what, store, given):
        return [str(self.binary), what, str(self.folder / store), *(f"{name}={value}" for name, value in given.items())]

    def get(self, what, store, group=None, **given):
        """One figure; `group` is a cgroup to run in."""
        def join():
            if group:
                (group / "cgroup.procs").write_text(str(os.getpid()))
        command = self.command(what, store, given)
        begun = time.monotonic()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=join)
        print(f"{what} {store} {given}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        return json.loads(done.stdout)

    def kill(self, store, entities):
        """A load that is killed when the store has grown to half of what it would."""
        child = subprocess.Popen(self.command("load", store, {"entities": 2 * entities, "version": 9}), stdout=subprocess.DEVNULL)
        before = size(self.folder / store)
        while child.poll() is None and size(self.folder / store) < 1.2 * before + (1 << 20):
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()

    def drop(self, store):
        shutil.rmtree(self.folder / store, ignore_errors=True)


def size(folder):
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            pass
    return total


def small_memory(megabytes):
    """A cgroup with so little memory, page cache included; None where this machine gives none."""
    root = Path("/sys/fs/cgroup")
    for parent in (root, root / "memory"):
        group = parent / "tahini-bench"
        try:
            group.mkdir(exist_ok=True)
            for name in ("memory.max", "memory.limit_in_bytes"):
                if (group / name).exists():
                    (group / name).write_text(str(megabytes << 20))
                    return group
            group.rmdir()
        except OSError:
            pass
    return None


def crates():
    """Every version of every crate whose index record cargo has cached, by crate and version."""
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    found = {}
    for path in home.glob("registry/index/*/.cache/**/*"):
        # A short header; then a version and its JSON by turns, with a NUL after each.
        for record in path.read_bytes().split(b"\0") if path.is_file() else ():
            if record.startswith(b"{"):
                one = json.loads(record)
                found[one["name"], by_version(one["vers"])] = {"_id": f"{one['name']}-{one['vers']}", **one}
    return [found[place] for place in sorted(found)]


def by_version(version):
    """The order of versions: by numbers, and what comes before a release before it."""
    numbers, _, before = version.split("+")[0].partition("-")
    return (*map(int, numbers.split(".")), not before, version)


def compression(figures, made):
    """What entities take on disk; None where there are none."""
    file, count = figures.folder / "compression.json", 0
    with file.open("w", encoding="utf-8") as lines:
        for count, one in enumerate(made, 1):
            lines.write(json.dumps(one, separators=(",", ":"), ensure_ascii=False) + "\n")
    found = figures.get("compression", "compression", file=file) if count else None
    figures.drop("compression")
    file.unlink()
    return found


def measure(options, figures):
    found = {"points": {}, "curve": [], "random": {}}
    n = options.entities
    found["generated"] = compression(figures, entities(options.generated, SEED))
    found["crates"] = compression(figures, crates())
    found["load"] = figures.get("load", "one", entities=n)
    figures.get("load", "one", entities=n, version=1)
    found["compacted"] = figures.get("compact", "one")
    for threads in (1, 2):
        found["points"][threads] = figures.get("points", "one", threads=threads, seconds=options.seconds)
    found["changes"] = figures.get("changes", "one")
    found["index"] = figures.get("index", "one")
    figures.drop("one")
    for count in options.curve:
        figures.get("load", "curve", entities=count)
        start = figures.get("start", "curve")
        one = figures.get("one", "curve")
        figures.kill("curve", count)
        killed = figures.get("start", "curve")
        found["curve"].append({"entities": count, "start": start, "one": one, "killed": killed})
        figures.drop("curve")
    found["random"] = figures.get("load", "random", entities=options.random, random=1)
    group = small_memory(options.memory)
    if group:
        found["little_memory"] = {
            "mb": options.memory, "disk_mb": size(figures.folder / "random") // 1_000_000,
            "points": figures.get("points", "random", group, seconds=options.seconds),
            "changes": figures.get("changes", "random", group),
        }
    figures.drop("random")
    found["datasets"] = figures.get("datasets", "many", datasets=options.datasets)
    figures.drop("many")
    found["writers"] = figures.get("writers", "writers", writers=options.writers, entities=options.entities)
    figures.drop("writers")
    return found


def reached(good):
    return "reached" if good else "**not reached**"


def page(options, found):
    """Our part of docs/performance.md."""
    two, one = found["points"][2], found["points"][1]
    changes, compacted, index = found["changes"], found["compacted"], found["index"]
    lines = [
        "## The store by itself", "",
        f"- commit `{commit()}`, release build; {machine()}; `benches/store.py`",
        f"- {options.entities:,} entities of 13 properties, parsed outside of what is measured, commits of 10,000, each durable before the next but one; each figure a process of its own", "",
        "| what | figure | goal | |", "|---|---|---|---|",
        f"| point reads by id, random, after compaction, two threads | {two['rate']:,} a second ({two['rate_by_cpu']:,} by processor time) | {POINT_READS:,} | {reached(two['rate'] >= POINT_READS)} |",
        f"| the same, one thread | {one['rate']:,} a second | | |",
        f"| change reads, one thread | {changes['rate']:,} a second ({changes['rate_by_cpu']:,} by processor time) | {CHANGE_READS:,} | {reached(changes['rate'] >= CHANGE_READS)} |",
        f"| on disk after compaction, index included | {compacted['disk_mb']} MB | {DISK_MB} MB | {reached(compacted['disk_mb'] <= DISK_MB)} |",
        f"| load, ids in order | {found['load']['rate']:,} a second | | |",
        f"| building a declared index | {index['build_rate']:,} versions a second | | |",
        f"| questions to it, each with the entities that it finds | {index['finds']:,} a second, {index['found']:,} entities | | |",
        f"| the first question after one change | {index['after_one_change_us']} µs | | |",
        f"| {options.writers} writers, each in a dataset of its own / all in one | {found['writers']['rate_own_with_making']:,} / {found['writers']['rate_shared_with_making']:,} a second, making the entities included | | |",
        "", "| entities | one change: write, durable (median, 99 %) | read it (median) | open the store | open it after kill -9 |", "|---|---|---|---|---|",
    ]
    for row in found["curve"]:
        change = row["one"]
        lines.append(f"| {row['entities']:,} | {change['write_us']} µs, {change['write_us_p99']} µs | {change['read_us']} µs | {row['start']['seconds']:.3f} s | {row['killed']['seconds']:.3f} s |")
    random, many = found["random"], found["datasets"]
    lines += [
        "", f"{random['entities']:,} inserts in random order, entities a second by tenths: {', '.join(f'{rate:,}' for rate in random['curve'])}; {random['disk_mb']:,} MB on disk.", "",
        f"{many['datasets']:,} datasets: made in {many['made_ms']} ms, {many['commits_first']:,} commits of 100 entities a second, then {many['commits_again']:,} that change all of them; {many['files_open']} files open; opened again in {many['seconds']:.2f} s, anonymous memory {many['anonymous_mb']} MB.", "",
    ]
    lines += [*compressed(found), ""]
    little = found.get("little_memory")
    if little:
        lines.append(f"With {little['mb']} MB of memory, page cache included, for {little['disk_mb']:,} MB on disk: {little['points']['rate']:,} point reads a second on two threads, {little['changes']['rate']:,} change reads.")
    else:
        lines.append("Data larger than memory was not measured: this machine gives no cgroup with a limit on memory, and no other limit counts the page cache.")
    return "\n".join(lines) + "\n"


def compressed(found):
    """The page's table of what JSON becomes on disk."""
    lines = ["| on disk, once it is compacted | entities | MB of JSON | MB of log | MB of index | JSON is |", "|---|---|---|---|---|---|"]
    titles = {"crates": "real: crates.io's index, a version of a crate each, as cargo keeps it on this machine", "generated": "generated: `benches/entities.py`"}
    for name, title in titles.items():
        one = found[name]
        if one:
            sizes = [one["json_bytes"], one["log_bytes"], one["index_bytes"]]
            cells = [f"{one['entities']:,}", *(f"{size / 1e6:.1f}" for size in sizes), f"{sizes[0] / sum(sizes[1:]):.1f} ×"]
        else:
            cells = ["cargo keeps none here", "–", "–", "–", "–"]
        lines.append(f"| {' | '.join([title, *cells])} |")
    return lines


def numbers(text):
    return [int(number) for number in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entities", type=int, default=WHOLE)
    parser.add_argument("--curve", type=numbers, default=CURVE)
    parser.add_argument("--random", type=int, default=CURVE[-1])
    parser.add_argument("--datasets", type=int, default=1_000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--memory", type=int, default=512, help="MB, for data larger than memory")
    parser.add_argument("--generated", type=int, default=GENERATED, help="entities, for compression beside real data")
    parser.add_argument("--seconds", type=int, default=5, help="how long point reads are counted")
    options = parser.parse_args()
    whole = options.entities >= WHOLE and options.curve[-1] >= CURVE[-1] and options.random >= CURVE[-1] and options.generated >= GENERATED
    if whole:
        demand_clean(parser)
    with tempfile.TemporaryDirectory(prefix="tahini-bench-") as folder:
        found = measure(options, Figures(build(), Path(folder)))
    print(json.dumps(found, indent=1))
    text = page(options, found)
    print(text, file=sys.stderr)
    if whole:
        write_part("store", text)


if __name__ == "__main__":
    sys.exit(main())
