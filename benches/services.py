#!/usr/bin/env python3
"""Measures what the hosting of microservices costs, and writes its part of docs/performance.md.

    tests/rig/with-engine.sh benches/services.py --tahini PATH [--repeat R] [--services N] [--seconds S]

Two things: what the node adds to the start of a container and its service, beside the same engine asked without a
node, in turns; and what it takes to watch over many services that do nothing. With fewer repeats or services than usual
nothing is written. Ends with 1 where a goal is missed.
"""

import argparse
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from node import OPENER, Node
from page import write_part
from run import free_port, machine

REPEAT, SERVICES, SECONDS = 15, 50, 60
# What is promised.
START_GOAL_MS, CPU_GOAL_PERCENT, MEMORY_GOAL_MB = 300, 1, 50
WITHIN_SECONDS = 120
LOOK_EVERY_SECONDS = 0.001
PORT = 5000
SERVICE = """
import http.server, os
class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", int(os.environ.get("PORT", 5000))), Service).serve_forever()
"""


class EngineConnection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(os.environ["DOCKER_HOST"].removeprefix("unix://"))


class Engine:
    """The engine, asked without a node; one connection for all requests, as a client keeps it."""

    def __init__(self):
        self.connection = EngineConnection("engine", timeout=WITHIN_SECONDS)

    def ask(self, method, path, body=None):
        text = None if body is None else json.dumps(body)
        self.connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
        answer = self.connection.getresponse()
        said = answer.read()
        if answer.status >= 400:
            raise SystemExit(f"{method} {path}: {answer.status} {said.decode()}")
        return json.loads(said) if said[:1] in (b"{", b"[") else said


def make_image(engine, repo, tag):
    """An image whose command is the service, made of the rig's."""
    made = engine.ask("POST", "/containers/create", {"Image": os.environ["TEST_IMAGE"], "Cmd": ["python3", "-c", SERVICE]})["Id"]
    engine.ask("POST", f"/commit?container={made}&repo={repo}&tag={tag}", {"Cmd": ["python3", "-c", SERVICE]})
    engine.ask("DELETE", f"/containers/{made}")


def push(repo, tag):
    connection = EngineConnection("engine", timeout=WITHIN_SECONDS)
    connection.request("POST", f"/images/{repo}/push?tag={tag}", headers={"X-Registry-Auth": "e30="})
    said = connection.getresponse().read().decode()
    if "errorDetail" in said:
        raise SystemExit(said)


def answered(url):
    """Waits for the first whole answer."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while time.monotonic() < deadline:
        try:
            with OPENER.open(url, timeout=WITHIN_SECONDS) as answer:
                if answer.read() == b"[]":
                    return
        except OSError:
            time.sleep(LOOK_EVERY_SECONDS)
    raise SystemExit(f"{url} did not answer within {WITHIN_SECONDS} s")


def start_without_node(engine, image, network):
    """Milliseconds from the wish to the service's first answer, with nothing but the engine."""
    port = free_port()
    begun = time.monotonic()
    container = engine.ask("POST", "/containers/create", {
        "Image": image, "ExposedPorts": {f"{PORT}/tcp": {}},
        "HostConfig": {
            "Memory": 128 << 20, "MemorySwap": 128 << 20, "CpuPeriod": 100_000, "CpuQuota": 100_000, "Init": True, "NetworkMode": network,
            "PortBindings": {f"{PORT}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]},
        },
    })["Id"]  # fmt: skip
    engine.ask("POST", f"/containers/{container}/start")
    answered(f"http://127.0.0.1:{port}/")
    taken = (time.monotonic() - begun) * 1000
    engine.ask("DELETE", f"/containers/{container}?force=true")
    return taken


def start_with_node(node, image, skip_pull):
    """The same through a node that has the system's configuration: its first request starts the service."""
    docker = {"image": image, "port": PORT, "cpu_quota": 100, "skip_pull": skip_pull}
    put(node, [{"_id": "one", "type": "system:microservice", "eager_load": False, "docker": docker}])
    begun = time.monotonic()
    answered(f"{node.url}/api/systems/one/proxy/")
    taken = (time.monotonic() - begun) * 1000
    put(node, [])
    # The old container is gone before the next turn.
    engine, label = Engine(), json.dumps({"label": ["io.tahini.system=one"]})
    while engine.ask("GET", f"/containers/json?all=true&filters={urllib.request.quote(label)}"):
        time.sleep(0.01)
    return taken


def put(node, config):
    request = urllib.request.Request(f"{node.url}/api/config", json.dumps(config).encode(), {"Content-Type": "application/json"}, method="PUT")
    try:
        with OPENER.open(request, timeout=WITHIN_SECONDS) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{error}: {error.read().decode()}") from error


def starts(options, folder):
    """Milliseconds of every start, by how it was made; in turns, so that what else the machine does falls on all."""
    engine = Engine()
    repo = f"{os.environ['TEST_REGISTRY']}/tahini-bench-service"
    image = f"{repo}:1"
    make_image(engine, repo, "1")
    push(repo, "1")
    network = engine.ask("POST", "/networks/create", {"Name": "tahini-bench", "Driver": "bridge", "CheckDuplicate": True})["Id"]
    (folder / "empty").mkdir()
    node = Node(options.tahini, folder / "empty", folder / "starts", free_port())
    times = {"engine": [], "node": [], "pull": []}
    try:
        for turn in range(options.repeat + 1):
            made = {
                "engine": start_without_node(engine, image, network),
                "node": start_with_node(node, image, True),
                "pull": start_with_node(node, image, False),
            }
            # The first of everything warms what is warm ever after.
            if turn > 0:
                for name, taken in made.items():
                    times[name].append(taken)
    finally:
        node.stop()
        engine.ask("DELETE", f"/networks/{network}")
    return image, times


def watched(options, folder, kind, systems):
    """What a node takes that watches over these services and does nothing else."""
    project = folder / kind
    (project / "systems").mkdir(parents=True)
    for system in systems:
        (project / f"systems/{system['_id']}.conf.json").write_text(json.dumps(system))
    node = Node(options.tahini, project, folder / f"{kind}-data", free_port())
    try:
        begun = time.monotonic()
        while not all(one["runtime"]["state"] == "running" for one in node.ask("/api/systems")):
            if time.monotonic() - begun > 2 * WITHIN_SECONDS:
                raise SystemExit(f"{kind}: not all services run after {2 * WITHIN_SECONDS} s")
            time.sleep(0.2)
        started = time.monotonic() - begun
        node.wait_until_quiet()
        pids = [node.process.pid, *watchers(node.process.pid)]
        before = sum(map(cpu_seconds, pids))
        time.sleep(options.seconds)
        spent = sum(map(cpu_seconds, pids)) - before
        memory = [status_mb(node.process.pid, "VmRSS"), status_mb(node.process.pid, "RssAnon")]
        beside = sum(own_mb(pid) for pid in pids[1:])
        return {"started": started, "percent": spent / options.seconds * 100, "rss": memory[0], "own": memory[1], "beside": beside}
    finally:
        node.stop()


def watchers(parent):
    """The small shells by which the node keeps local processes; they count as the node."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        name, fields = text[text.index("(") + 1 : text.rindex(")")], text.rsplit(")", 1)[1].split()
        if int(fields[1]) == parent and name in ("sh", "dash", "bash"):
            found.append(int(stat.parent.name))
    return found


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def status_mb(pid, name):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+)", text, flags=re.MULTILINE).group(1)) / 1024


def own_mb(pid):
    """Memory of a process by its share: pages that many have count once."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", text, flags=re.MULTILINE).group(1)) / 1024


def built_from(tahini):
    """What the program says of itself: its version and commit."""
    return subprocess.run([str(tahini), "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def page(options, times, kinds):
    """Our part of docs/performance.md."""
    median = {name: statistics.median(taken) for name, taken in times.items()}

    def row(title, name):
        more = "–" if name == "engine" else f"{median[name] - median['engine']:+.0f}".replace("-", "−")
        return f"| {title} | {median[name]:.0f} | {more} | {', '.join(f'{one:.0f}' for one in times[name])} |"

    lines = [
        "## Hosted microservices", "",
        f"- {built_from(options.tahini)}, release build; {machine()}; a real engine and registry on loopback (`tests/rig`)",
        f"- starts: a small service in Python, from the wish to the first answer, {len(times['engine'])} of each in turns; through the node the first request to its proxy is the wish, so that the proxy's own way is in the figure", "",
        "| start | ms (median) | more than the engine alone | ms, every start |", "|---|---|---|---|",
        row("the engine alone: create, start, ask until it answers", "engine"),
        row("the node, `skip_pull`", "node"),
        row("the node, after a look at the registry", "pull"),
        "",
        f"- watching over services that do nothing, for {options.seconds} s; the shells by which the node keeps local processes are counted as the node", "",
        "| what the node watches | processor, % of a core | resident memory | of that its own | shells beside it | all running after |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for title, found in kinds.items():
        lines.append(f"| {title} | {found['percent']:.2f} | {found['rss']:.0f} MB | {found['own']:.0f} MB | {found['beside']:.0f} MB | {found['started']:.0f} s |")
    return "\n".join([*lines, ""])


def missed(times, kinds):
    median = {name: statistics.median(taken) for name, taken in times.items()}
    words = []
    for name in ("node", "pull"):
        more = median[name] - median["engine"]
        if more >= START_GOAL_MS:
            words.append(f"missed: expected less than {START_GOAL_MS} ms more than the engine alone, found {more:.0f} ms ({name})")
    for title, found in kinds.items():
        if found["percent"] >= CPU_GOAL_PERCENT:
            words.append(f"missed: expected less than {CPU_GOAL_PERCENT} % of a core for {title}, found {found['percent']:.2f} %")
        memory = found["rss"] + found["beside"]
        if memory >= MEMORY_GOAL_MB:
            words.append(f"missed: expected less than {MEMORY_GOAL_MB} MB for {title}, found {memory:.0f} MB")
    return words


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tahini", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=REPEAT)
    parser.add_argument("--services", type=int, default=SERVICES)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    options = parser.parse_args()
    options.tahini = options.tahini.resolve()
    if "TEST_IMAGE" not in os.environ:
        raise SystemExit("expected an engine (DOCKER_HOST, TEST_IMAGE, TEST_REGISTRY), found none; run this by tests/rig/with-engine.sh")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, times = starts(options, folder)
        n = options.services
        docker = {"image": image, "port": PORT, "cpu_quota": 100, "skip_pull": True, "memory": 64}
        process = {"command": ["python3", "-c", SERVICE]}
        of = lambda part: [{"_id": f"service-{i}", "type": "system:microservice", **part} for i in range(n)]
        kinds = {
            "nothing": watched(options, folder, "nothing", []),
            f"{n} containers": watched(options, folder, "containers", of({"docker": docker})),
            f"{n} local processes": watched(options, folder, "processes", of({"process": process})),
        }
    text = page(options, times, kinds)
    print(text)
    if options.repeat >= REPEAT and n >= SERVICES and options.seconds >= SECONDS:
        write_part("services", text)
    short = missed(times, kinds)
    print("\n".join(short), file=sys.stderr)
    return bool(short)


if __name__ == "__main__":
    sys.exit(main())
