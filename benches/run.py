#!/usr/bin/env python3
"""Measures the node on this machine and writes docs/performance.md.

    benches/run.py --tahini PATH [--count 1000000] [--runs 3] [--no-peers]
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import entities

ROOT = Path(__file__).resolve().parents[1]
SEED = 42
SYSTEM = {"_id": "files", "type": "system:url"}


def project(folder, port, source):
    """A project of one pipe that imports `people` from the server."""
    (folder / "pipes").mkdir(parents=True)
    (folder / "systems").mkdir()
    system = SYSTEM | {"url_pattern": f"http://127.0.0.1:{port}/%s"}
    pipe = {"_id": "people", "type": "pipe", "source": {"type": "json", "system": "files"} | source}
    (folder / "systems/files.conf.json").write_text(json.dumps(system))
    (folder / "pipes/people.conf.json").write_text(json.dumps(pipe))


class Measured:
    """A command with its peak of anonymous and mapped memory, and its CPU seconds."""

    def __init__(self, command):
        before = os.times()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.anonymous = self.mapped = 0
        watcher = threading.Thread(target=self.watch)
        watcher.start()
        self.out = self.process.stdout.read()
        self.code = self.process.wait()
        watcher.join()
        after = os.times()
        self.cpu = (after.children_user + after.children_system
                    - before.children_user - before.children_system)

    def watch(self):
        while self.process.returncode is None and self.process.poll() is None:
            try:
                text = Path(f"/proc/{self.process.pid}/status").read_text()
            except OSError:
                return
            size = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()
                    if line.startswith(("RssAnon", "RssFile"))}
            self.anonymous = max(self.anonymous, size.get("RssAnon", 0) / 1024)
            self.mapped = max(self.mapped, size.get("RssFile", 0) / 1024)
            time.sleep(0.02)


def run(tahini, folder, data):
    """Runs the project once; the row of its only pipe, with memory and CPU beside it."""
    measured = Measured([tahini, "run", str(folder), "--data", str(data), "--json"])
    if measured.code != 0:
        sys.exit(f"the run failed: {measured.out.decode()}")
    row = json.loads(measured.out)["runs"][0]
    row |= {"anonymous": measured.anonymous, "mapped": measured.mapped, "cpu": measured.cpu}
    return row


def disk(folder):
    return sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / 1e6


def measure_import(tahini, work, port, count, runs):
    """First load, unchanged reload, and one change among all, `runs` times each."""
    whole, since = work / "whole", work / "since"
    project(whole, port, {"url": "people.json"})
    project(since, port, {"url": "people-updated.json", "supports_since": True})
    rows = []
    for _ in range(runs):
        data, more = work / "data", work / "more"
        for folder in (data, more):
            shutil.rmtree(folder, ignore_errors=True)
        first, again = run(tahini, whole, data), run(tahini, whole, data)
        assert first["changed"] == count and again["changed"] == 0, (first, again)
        run(tahini, since, more)
        change = run(tahini, since, more)
        assert (change["entities_read"], change["changed"]) == (1, 1), change
        rows.append({"first": first, "again": again, "change": change, "disk": disk(data)})
    return rows


def peer_dlt(work, port):
    """dlt into DuckDB from the same server; `None` where it is not installed."""
    try:
        import dlt  # noqa: F401
    except ImportError:
        return None
    folder = work / "dlt"
    folder.mkdir()
    command = [sys.executable, str(ROOT / "benches/peer_dlt.py"),
               f"http://127.0.0.1:{port}/people.json", str(folder)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def median(values, form="{:,.0f}"):
    values = list(values)
    return f"{form.format(statistics.median(values))} ({', '.join(form.format(v) for v in values)})"


def report(rows, count, peer, tahini):
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    version = subprocess.run([tahini, "--version"], capture_output=True, text=True).stdout.strip()
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    rate = lambda key: median(count / row[key]["total_time"] for row in rows)
    lines = [
        "# Performance", "",
        "Written by `make bench`; every figure is a median with all runs behind it.", "",
        f"- commit `{git('rev-parse', '--short', 'HEAD')}`, {version}",
        f"- {os.cpu_count()} cores ({cpu}), {platform.system()} {platform.release()}",
        f"- {count:,} entities of about 321 bytes from `benches/entities.py`, seed {SEED}, over HTTP "
        "from a Python file server on the same machine", "",
        "## Import with change tracking, durable at every checkpoint", "",
        "| what | median (every run) |", "| --- | --- |",
        f"| first load, entities/s | {rate('first')} |",
        f"| unchanged full reload, entities/s | {rate('again')} |",
        f"| one change among all, ms of the node's own time | "
        f"{median((row['change']['total_time'] * 1000 for row in rows), '{:.1f}')} |",
        f"| CPU seconds of the first load, whole process | {median((row['first']['cpu'] for row in rows), '{:.2f}')} |",
        f"| peak anonymous memory of the first load, MB | {median((row['first']['anonymous'] for row in rows))} |",
        f"| peak mapped pages of the first load, MB | {median((row['first']['mapped'] for row in rows))} |",
        f"| peak anonymous memory of the reload, MB | {median((row['again']['anonymous'] for row in rows))} |",
        f"| disk after the reload, MB | {median((row['disk'] for row in rows))} |",
    ]
    if peer:
        lines += ["", "## Beside it: dlt into DuckDB (merge by primary key, parquet files), same server, same run", "",
                  "| what | entities/s |", "| --- | --- |",
                  f"| first load | {count / peer[0]:,.0f} |", f"| unchanged reload | {count / peer[1]:,.0f} |"]
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs/performance.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tahini", required=True)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tahini-bench-") as name:
        work = Path(name)
        files = work / "files"
        files.mkdir()
        print("writing entities …", file=sys.stderr)
        entities.write_array(files / "people.json", options.count, SEED)
        entities.write_array(files / "people-updated.json", options.count, SEED, updated=True)
        changed = next(entities.entities(1, SEED)) | {"city": "Changed", "_updated": options.count}
        (files / "people-updated.json.changes").write_text(json.dumps([changed]))
        server = subprocess.Popen([sys.executable, str(ROOT / "benches/server.py"), str(files)],
                                  stdout=subprocess.PIPE, text=True)
        try:
            port = int(server.stdout.readline())
            rows = measure_import(options.tahini, work, port, options.count, options.runs)
            peer = None if options.no_peers else peer_dlt(work, port)
        finally:
            server.kill()
        report(rows, options.count, peer, options.tahini)


main()
