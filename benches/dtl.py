#!/usr/bin/env python3
"""Measures DTL beside other tools on one core, and writes its part of docs/performance.md.

    dtl.py --tahini PATH [--entities N] [--repeat R]

Every tool does the same work (benches/peers/rules): filter, rename, join two strings, upper-case one, remove,
copy the rest; their outputs are compared. With fewer entities than a million nothing is written.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from entities import entities
from page import ROOT, commit, demand_clean, write_part
from run import SEED, WHOLE, machine, venv

PEERS = ROOT / "benches/peers"
RULES = PEERS / "rules"
CORE = 0
# What the language promises: how many times the other one's throughput.
GOALS = {"jq 1.6": 10, "VRL": 2, "by hand": 1}
EVALUATION_GOAL = 3
COMPILATION_GOAL_MS = 100


def build():
    """The folder of the peers' binaries. Each package by itself: features of one would change the other."""
    for package in ("foreign", "own"):
        subprocess.run(["cargo", "build", "--release", "--quiet", "--package", package], cwd=PEERS, check=True)
    told = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version=1"], cwd=PEERS, check=True, stdout=subprocess.PIPE)
    return Path(json.loads(told.stdout)["target_directory"]) / "release"


def tools(options, peers):
    """Name → command."""
    jq = (RULES / "people.jq").read_text()
    sql = (RULES / "people.sql").read_text()
    python = venv("dtl-venv", RULES.parent / "requirements.txt")
    found = {
        "tahini transform": [str(options.tahini), "transform", str(RULES / "people.dtl.json")],
        "by hand": [str(peers / "foreign"), "by-hand"],
        "DuckDB": [str(python / "python"), "-c", f"import duckdb; duckdb.execute('set threads = 1; set enable_progress_bar = false'); duckdb.execute({sql!r})"],
        "VRL": [str(peers / "foreign"), "vrl"],
        "jaq": [str(python / "jaq"), "-c", jq],
        "jq 1.6": ["jq", "-c", jq],
    }
    version = subprocess.run(["jq", "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
    if version != "jq-1.6":
        found[version] = found.pop("jq 1.6")
    return found


def run(command, source, target):
    """Processor seconds, user and system, and peak memory in MB of one run on one core."""
    with open(source) as stdin, open(target, "w") as stdout:
        child = subprocess.Popen(["taskset", "-c", str(CORE), *command], stdin=stdin, stdout=stdout)
    peak = 0
    # What wait4 says of memory begins with this process's own, so that it is read from the outside.
    while not (ended := os.wait4(child.pid, os.WNOHANG))[0]:
        peak = max(peak, peak_kb(child.pid))
        time.sleep(0.01)
    _, status, usage = ended
    if status:
        raise SystemExit(f"{command[0]}: expected success, found status {status}")
    return {"cpu": usage.ru_utime + usage.ru_stime, "mb": peak >> 10}


def peak_kb(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def first_difference(expected, found):
    """Where two outputs differ: as entities, whatever the order of their names."""
    with open(expected) as left, open(found) as right:
        for at, (a, b) in enumerate(zip(left, right, strict=False)):
            if json.loads(a) != json.loads(b):
                return f"entity {at}: {a.strip()} and {b.strip()}"
        return next(left, None) or next(right, None)


def told(command, source):
    with open(source) as stdin:
        done = subprocess.run(["taskset", "-c", str(CORE), *map(str, command)], stdin=stdin, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def measure(options, folder):
    """Runs of every tool in turn, so that what else the machine does falls on all of them."""
    peers = build()
    commands = tools(options, peers)
    source = folder / "people.ndjson"
    with open(source, "w") as file:
        file.writelines(json.dumps(one, separators=(",", ":")) + "\n" for one in entities(options.entities, SEED))
    results = {name: [] for name in commands}
    evaluated = {"own": [], "foreign": [], "compile": []}
    for turn in range(options.repeat):
        for name, command in commands.items():
            slow = name.startswith("j")
            if slow and turn > 0:
                continue
            target = folder / f"{name}.out"
            results[name].append(run(command, source, target))
            if turn == 0 and name != "tahini transform":
                difference = first_difference(folder / "tahini transform.out", target)
                if difference:
                    raise SystemExit(f"expected the same results of {name}, found {difference}")
            target.unlink() if name != "tahini transform" else None
        evaluated["own"].append(told([peers / "own", "evaluate"], source))
        evaluated["foreign"].append(told([peers / "foreign", "evaluate"], source))
        evaluated["compile"].append(told([peers / "own", "compile"], os.devnull))
        print(f"turn {turn + 1}: " + ", ".join(f"{name} {runs[-1]['cpu']:.2f} s" for name, runs in results.items()), flush=True)
    small = folder / "small.ndjson"
    subprocess.run(f"head -n {options.entities // 10} '{source}' > '{small}'", shell=True, check=True)
    memory = run(commands["tahini transform"], small, os.devnull)["mb"]
    return results, evaluated, memory


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def page(options, results, evaluated, memory):
    """Our part of docs/performance.md."""
    n = options.entities
    cpu = {name: median(runs, "cpu") for name, runs in results.items()}
    own = cpu["tahini transform"]
    lines = [
        "## DTL beside other tools", "",
        f"- commit `{commit()}`, release build; {machine()}",
        f"- {n:,} entities, a line of JSON each, from a file to a file; the tools take turns, each on the same core; a run is judged by the processor time, user and system, that it takes",
        "- the work, the same for all, outputs compared: keep two thirds by two conditions, rename a property, join two strings, upper-case one, remove two, copy the rest (`benches/peers/rules`)", "",
        "| tool | entities/s and core (median) | ours is | processor s, every run | memory, peak |",
        "|---|---|---|---|---|",
    ]
    for name, runs in results.items():
        times = "" if name == "tahini transform" else f"{cpu[name] / own:.1f} ×"
        every = ", ".join(f"{run['cpu']:.2f}" for run in runs)
        lines.append(f"| {TITLES.get(name, name)} | {n / cpu[name]:,.0f} | {times} | {every} | {max(run['mb'] for run in runs)} MB |")
    dtl, vrl = evaluated["own"], evaluated["foreign"]
    lines += [
        "", f"A tenth of the entities takes `tahini transform` {memory} MB, so memory does not grow with the input.", "",
        "| by itself, microseconds an entity (median) | DTL | VRL | ratio |", "|---|---|---|---|",
    ]
    for title, key in (("evaluation: every expression, nothing written", "evaluate_us"), ("evaluation, and results written as lines", "lines_us")):
        a, b = median(dtl, key), median(vrl, key)
        lines.append(f"| {title} | {a:.3f} | {b:.3f} | {b / a:.1f} × |")
    lines += [
        f"| between pipes: from encoded entities to encoded and hashed ones | {median(dtl, 'encoded_us'):.3f} | – | – |",
        "", "DTL starts from entities whose text was opened, VRL from its own values; the time to get there is part of the first table. VRL changes its values in place, so that a part of its evaluation is what DTL does when it writes.", "",
        f"Compiling the rules of {evaluated['compile'][0]['pipes']} pipes (22 statements and two applied rules each) takes {median(evaluated['compile'], 'ms'):.0f} ms.",
    ]
    return "\n".join(lines) + "\n"


TITLES = {
    "by hand": "a program for this task alone, over sonic-rs's values",
    "DuckDB": "DuckDB, SQL over typed columns, one thread",
    "VRL": "VRL (Vector Remap Language), read and written by serde_json",
}


def missed(results, evaluated):
    """What falls short of the goals, in words."""
    cpu = {name: median(runs, "cpu") for name, runs in results.items()}
    short = [f"{name}: expected {goal} times its throughput, found {cpu[name] / cpu['tahini transform']:.2f}"
             for name, goal in GOALS.items() if name in cpu and cpu[name] / cpu["tahini transform"] < goal]
    ratio = median(evaluated["foreign"], "evaluate_us") / median(evaluated["own"], "evaluate_us")
    if ratio < EVALUATION_GOAL:
        short.append(f"evaluation: expected {EVALUATION_GOAL} times VRL's, found {ratio:.2f}")
    if median(evaluated["compile"], "ms") > COMPILATION_GOAL_MS:
        short.append(f"compilation: expected {COMPILATION_GOAL_MS} ms, found {median(evaluated['compile'], 'ms'):.0f}")
    return short


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tahini", required=True, type=lambda path: Path(path).resolve())
    parser.add_argument("--entities", type=int, default=WHOLE)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    whole = options.entities >= WHOLE
    if whole:
        demand_clean(parser)
    with tempfile.TemporaryDirectory(prefix="tahini-bench-") as folder:
        figures = measure(options, Path(folder))
    text = page(options, *figures)
    print(text)
    if whole:
        write_part("dtl", text)
    short = missed(*figures[:2])
    print("\n".join(short), file=sys.stderr)
    return bool(short)


if __name__ == "__main__":
    sys.exit(main())
