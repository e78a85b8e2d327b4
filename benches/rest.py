#!/usr/bin/env python3
"""Measures what collecting through a REST source costs beside a bare HTTP client, and writes its part of
docs/performance.md.

    benches/rest.py --tahini PATH [--records N] [--repeat R]

The client makes the same requests over one connection and throws the answers away; both ask a server in a process of
its own that takes a while to answer, as services do, and one that answers at once. With fewer records or repeats than
usual nothing is written. Ends with 1 where a goal is missed.
"""

import argparse
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from node import Node
from page import write_part
from run import HERE, expect, free_port, machine
from services import built_from

RECORDS, PAGE, REPEAT = 100_000, 100, 5
# How long a page takes to be answered: at once, and as quickly as a good service is.
PAUSES_MS = (0, 10)
# What is promised for a service that takes its time.
GOAL_PERCENT = 20
WRITES, AT_ONCE = 1000, 8


class Pages:
    """pages.py in a process of its own."""

    def __init__(self, records, pause):
        command = [sys.executable, str(HERE / "pages.py"), str(records), str(PAGE), str(pause)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def stop(self):
        self.process.stdin.close()
        self.process.wait(10)


def bare(port, records):
    """Seconds that the requests take without anything made of their answers."""
    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for offset in range(0, records, PAGE):
        connection.request("GET", f"/records?offset={offset}" if offset else "/records")
        connection.getresponse().read()
    connection.close()
    return time.monotonic() - begun


def write_project(folder, port):
    for part in ("pipes", "systems"):
        (folder / part).mkdir(parents=True)
    listing = {"url": "records", "method": "GET", "payload_property": "records", "id_expression": "{{ id }}", "next_page_link": "{% if body.next is defined %}records?offset={{ body.next }}{% endif %}"}
    update = {"url": "records/{{ entity._id }}", "method": "PUT", "payload": {"name": "{{ entity.name }}"}}
    system = {"_id": "outside", "type": "system:rest", "url_pattern": f"http://127.0.0.1:{port}/%s", "operations": {"list": listing, "update": update, "update-at-once": {**update, "parallel_requests": AT_ONCE}}}
    (folder / "systems/outside.conf.json").write_text(json.dumps(system))
    some = {"type": "embedded", "entities": [{"_id": f"e{n}", "name": f"name {n}"} for n in range(WRITES)]}
    pipes = {"collect": {"source": {"type": "rest", "system": "outside", "operation": "list"}}}
    for name in ("update", "update-at-once"):
        pipes[name] = {"batch_size": 100, "source": some, "sink": {"type": "rest", "system": "outside", "operation": name}}
    for name, pipe in pipes.items():
        (folder / f"pipes/{name}.conf.json").write_text(json.dumps({"_id": name, "type": "pipe", **pipe}))


def measure(options, folder, pause):
    """Seconds of every run, by what was run; in turns, so that what else the machine does falls on all."""
    pages = Pages(options.records, pause)
    write_project(folder / "project", pages.port)
    times = {"bare": [], "first": [], "again": [], "cpu": []}
    writes = {"update": [], "update-at-once": []}
    try:
        bare(pages.port, options.records)  # Warms the server.
        for turn in range(options.repeat):
            data = folder / f"data-{turn}"
            node = Node(options.tahini, folder / "project", data, free_port())
            try:
                times["bare"].append(bare(pages.port, options.records))
                first = expect(node.run("collect"), read=options.records, changed=options.records)
                times["first"].append(first["total_time"])
                times["cpu"].append(first["cpu"])
                times["again"].append(expect(node.run("collect"), read=options.records, changed=0)["total_time"])
                if pause:
                    for name, found in writes.items():
                        found.append(expect(node.run(name), read=WRITES, changed=WRITES)["total_time"])
            finally:
                node.stop()
            shutil.rmtree(data)
            print(f"{pause} ms, turn {turn + 1}: " + ", ".join(f"{name} {found[-1]:.2f} s" for name, found in {**times, **writes}.items() if found), flush=True)
    finally:
        pages.stop()
    return times, writes


def more(times, name):
    """How much longer a run takes than the bare client, in percent of that."""
    return (statistics.median(times[name]) / statistics.median(times["bare"]) - 1) * 100


def page(options, results):
    """Our part of docs/performance.md."""
    lines = [
        "## Collecting over REST", "",
        f"- {built_from(options.tahini)}, release build; {machine()}",
        f"- {options.records:,} records in pages of {PAGE}, the next page named in the body, `_id` by an expression; the bare client is Python's `http.client` over one connection, which throws the answers away", "",
        "| a page is answered | | seconds (median) | more than the bare client | seconds, every run |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for pause, (times, _) in results.items():
        after = f"after {pause} ms" if pause else "at once"
        for title, name in (("bare client", "bare"), ("first run", "first"), ("again, nothing changed", "again")):
            share = "–" if name == "bare" else f"{more(times, name):+.0f} %".replace("-", "−")
            lines.append(f"| {after} | {title} | {statistics.median(times[name]):.2f} | {share} | {', '.join(f'{one:.2f}' for one in times[name])} |")
    times, writes = results[max(results)]
    one, several = (statistics.median(writes[name]) for name in ("update", "update-at-once"))
    lines += [
        "",
        f"Collecting takes {statistics.median(times['cpu']):.2f} s of processor time, {statistics.median(times['cpu']) / options.records * 1e6:.1f} µs a record, in the first run. "
        f"{WRITES:,} updates through a REST sink, each answered after {max(results)} ms, take {one:.1f} s one after the other and {several:.1f} s with `parallel_requests` {AT_ONCE}.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tahini", type=Path, required=True)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--repeat", type=int, default=REPEAT)
    options = parser.parse_args()
    options.tahini = options.tahini.resolve()
    results = {}
    for pause in PAUSES_MS:
        with tempfile.TemporaryDirectory() as name:
            results[pause] = measure(options, Path(name), pause)
    text = page(options, results)
    print(text)
    if options.repeat >= REPEAT and options.records >= RECORDS:
        write_part("rest", text)
    times, writes = results[max(results)]
    short = []
    for name in ("first", "again"):
        if more(times, name) >= GOAL_PERCENT:
            short.append(f"missed: expected less than {GOAL_PERCENT} % more than the bare client, found {more(times, name):.0f} % ({name})")
    if statistics.median(writes["update-at-once"]) * AT_ONCE / 2 > statistics.median(writes["update"]):
        short.append("missed: expected parallel requests to take less than a part of the time")
    print("\n".join(short), file=sys.stderr)
    return bool(short)


if __name__ == "__main__":
    sys.exit(main())
