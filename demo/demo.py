"""Runs the four example projects against stand-ins of the outside APIs, and shows what happened.

    .cache/venv/bin/python demo/demo.py --tahini target/release/tahini

Every pipe runs once; then one contact is edited in the stand-in for HubSpot and
every pipe runs again. After that it stays up for you to look around, until Ctrl-C.
`--once` ends instead: code 0 when both tables are as in demo/expected, else 1.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import containers
import table
from processes import USUAL_PORT, Node, StandIns, Trouble, free_port

EXPECTED = Path(__file__).resolve().parent / "expected"
EDITED = {"id": "5051", "properties": {"city": "Hamar"}, "at": "2026-01-02T03:04:05.678Z"}
FOREVER = 1_000_000
# What can be broken, to see that the demo notices: stand-in and fault.
BREAKS = {
    "hubspot-truncate": ("hubspot", {"kind": "truncate", "after": 1, "count": FOREVER}),
    "github-limit": ("github", {"kind": "status", "status": 429, "retry_after": 0, "count": FOREVER}),
    "crm-down": ("crm", {"kind": "disconnect", "count": FOREVER}),
    "postcode-truncate": ("postcode", {"kind": "truncate-json", "count": FOREVER}),
}


def main():
    options = arguments()
    # SIGTERM ends as Ctrl-C does: everything is stopped on the way out. Ctrl-C is named, too:
    # a shell that starts us in the background has switched it off.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        if options.docker:
            containers.beside_an_engine()
            containers.images()
        with tempfile.TemporaryDirectory(prefix="tahini-demo-") as folder:
            return play(options, folder)
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130 if options.once else 0
    except Trouble as trouble:
        print(f"error: {trouble}", file=sys.stderr)
        return 1


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tahini", required=True, help="path of the built node")
    parser.add_argument("--once", action="store_true", help="compare with demo/expected and end with 0 or 1")
    parser.add_argument("--docker", action="store_true", help="run the examples' services as containers")
    parser.add_argument("--break", dest="broken", choices=sorted(BREAKS), help="break one stand-in")
    parser.add_argument("--port", type=int, default=USUAL_PORT, help=f"first port to try for the node ({USUAL_PORT})")
    return parser.parse_args()


def play(options, folder):
    """The whole demo; the exit code."""
    started = time.monotonic()
    with stopped(StandIns(containers.gateway()) if options.docker else StandIns()) as standins:
        if options.broken:
            name, fault = BREAKS[options.broken]
            standins.control(name, "fault", **fault)
            print(f"The stand-in for {name} is broken on purpose: {fault}\n")
        for name in standins.elsewhere():
            print(f"The usual port of the stand-in for {name} is taken; it is at {standins.url(name)}.\n")
        port = free_port(options.port)
        if port != options.port:
            print(f"Port {options.port} is taken; the node listens on {port}.\n")
        as_containers = ["--prefer-docker"] if options.docker else []
        with stopped(Node(options.tahini, folder, standins, port, options=as_containers)) as node:
            print("The first run of every pipe:\n")
            first = run_all(node)
            if options.docker:
                show_containers(node)
            standins.control("hubspot", "edit", **EDITED)
            print(f"\nContact {EDITED['id']} moved to {EDITED['properties']['city']} in HubSpot. Every pipe again:\n")
            second = run_all(node)
            changed = sum(row["changed"] for row in second)
            print(f"\n{changed} {'entity' if changed == 1 else 'entities'} changed. What was read and had not changed "
                  "wrote nothing.")
            if options.once:
                code = verdict(first, second)
                print(f"{time.monotonic() - started:.1f} s in all.")
                return code
            look_around(node, standins)
    return 0


@contextmanager
def stopped(process):
    """Stops a process on the way out, whatever happens."""
    try:
        yield process
    finally:
        process.stop()


def show_containers(node):
    """Says of each service which image runs; Trouble where one is no container."""
    print("\nThe containers:\n")
    for system in node.call("GET", "/systems"):
        status = node.call("GET", f"/systems/{system['_id']}/status")
        if status.get("state") is None:
            continue
        print(f"{system['_id']:10}{status['state']:10}{status.get('image')}  {str(status.get('container_id'))[:12]}")
        if not status.get("container_id"):
            raise Trouble(f"{system['_id']}: expected a container, found {status}")


def run_all(node):
    """Runs every pipe, upstream first, and prints the table of it."""
    rows = [table.row_of(pipe, node.run(pipe)) for pipe in node.pipes()]
    print(table.text_of(rows))
    return rows


def verdict(first, second):
    """0 when both tables are as expected; says what differs otherwise."""
    lines = []
    for name, rows in (("first", first), ("second", second)):
        expected = json.loads((EXPECTED / f"{name}.json").read_text("utf-8"))
        lines += [f"{name} run: {line}" for line in table.differences(expected, rows)]
    if not lines:
        print("\nBoth runs are as expected.")
        return 0
    print("\nNot as expected:\n  " + "\n  ".join(lines), file=sys.stderr)
    return 1


def look_around(node, standins):
    """Prints where to look and waits for Ctrl-C."""
    print(f"""
To look at:
  {node.url}/                                                the status page
  {node.url}/api/publishers/hubspot-oslo-customers/entities  contacts, published
  {node.url}/api/publishers/customers-published/entities     customers with their place
  {node.url}/api/systems/crm/proxy/batches                   the batches that the CRM's service got
  {standins.url('crm')}/__control                                      what the CRM wrote and refused

To try:
  curl -d '{{"operation": "edit", "id": "101", "properties": {{"city": "Oslo"}}}}' {standins.url('hubspot')}/__control
  curl -d operation=start {node.url}/api/pipes/hubspot-contacts-collect/pump

Ctrl-C ends everything.""", flush=True)
    code = node.process.wait()
    raise Trouble(f"the node ended by itself with code {code}:\n{node.last_lines()}")


if __name__ == "__main__":
    sys.exit(main())
