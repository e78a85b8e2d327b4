"""The two processes that the demo and its tests start: the stand-ins and a node."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ["hubspot", "github", "write-back", "enrich"]
USUAL_PORT = 9042
READY_WITHIN_SECONDS = 30
RUN_WITHIN_SECONDS = 120
STOP_WITHIN_SECONDS = 30
LOOK_EVERY_SECONDS = 0.02
STANDIN_PORTS = {"hubspot": 9251, "github": 9252, "crm": 9253, "postcode": 9254, "orders": 9255, "sales": 9256,
                 "hr": 9257, "support": 9258, "billing": 9259}  # As in the test-env.json files.


class Trouble(Exception):
    """Something that ends the demo. The text says what was expected and what was found."""


def free_port(first=USUAL_PORT):
    """The first port from `first` on that nobody on loopback listens on."""
    for port in range(first, 65536):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Trouble(f"expected a free port from {first} on, found none")


# Everything is on loopback: a proxy that the environment names has no part in it.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def request(method, url, form=None, body=None):
    """Status and JSON of one answer (None when it has no JSON)."""
    data = urllib.parse.urlencode(form).encode() if form is not None else None
    headers = {}
    if body is not None:
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    asked = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with OPENER.open(asked, timeout=RUN_WITHIN_SECONDS) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, None


def end(process):
    """Asks a process to end, and makes it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class StandIns:
    """The stand-ins, on their usual ports or, where one is taken, on another."""

    def __init__(self, host="127.0.0.1"):
        # A session of its own: Ctrl-C is for the demo, which stops things in order.
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "demo" / "standins" / "run.py"), "--until-eof", "--any-port", "--host", host],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )
        self.urls = {}
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
            name, url = line.split()
            self.urls[name] = url
        why = self.process.stderr.read().strip()
        self.stop()
        raise Trouble(f"the stand-ins did not start: {why}")

    def url(self, name):
        return self.urls[name]

    def elsewhere(self):
        """The names of those that are not on their usual ports."""
        return [name for name, url in self.urls.items() if not url.endswith(f":{STANDIN_PORTS[name]}")]

    def environment(self, projects):
        """The projects' variables, with the addresses at which the stand-ins really are."""
        merged = {}
        for project in projects:
            text = (ROOT / "examples" / project / "test-env.json").read_text("utf-8")
            for name, port in STANDIN_PORTS.items():
                text = text.replace(f"http://127.0.0.1:{port}", self.urls[name])
            merged.update(json.loads(text))
        return merged

    def control(self, name, operation, **order):
        """Bends a stand-in; what it says about itself afterwards."""
        status, state = request("POST", self.url(name) + "/__control", body={"operation": operation, **order})
        if status != 200:
            raise Trouble(f"{name}: {operation} {order}: expected 200, found {status}: {state}")
        return state

    def state(self, name):
        return request("GET", self.url(name) + "/__control")[1]

    def stop(self):
        end(self.process)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()


class Node:
    """`tahini serve` with the example projects, on loopback, pumps run on request only."""

    def __init__(self, tahini, folder, standins, port=None, projects=EXAMPLES, options=()):
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = Path(folder) / "node.log"
        examples = [ROOT / "examples" / name for name in projects]
        variables = Path(folder) / "variables.json"
        variables.write_text(json.dumps(standins.environment(projects)), "utf-8")
        command = [str(tahini), "serve", "--data", str(Path(folder) / "data"), "--listen", f"127.0.0.1:{self.port}",
                   "--no-schedule", "--profile", "test", "--env", str(variables), *options]
        for example in examples:
            command += ["--secrets", str(example / "secrets.json")]
        command += [str(example) for example in examples]
        # The services' `python3` is the one that has Flask: that of the environment we run in.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        environment = {**os.environ, "PATH": path, "TAHINI_MASTER_KEY_FILE": str(Path(folder) / "master.key")}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def wait_until_ready(self):
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while True:
            if self.process.poll() is not None:
                raise Trouble(f"the node ended with code {self.process.returncode}:\n{self.last_lines()}")
            try:
                if request("GET", self.url + "/readyz")[0] == 200:
                    return
            except OSError:
                pass  # Not listening yet.
            if time.monotonic() > deadline:
                raise Trouble(f"the node was not ready after {READY_WITHIN_SECONDS} s:\n{self.last_lines()}")
            time.sleep(LOOK_EVERY_SECONDS)

    def last_lines(self, count=30):
        """The end of the node's log."""
        return "\n".join(self.log.read_text("utf-8", errors="replace").splitlines()[-count:])

    def call(self, method, path, form=None, body=None):
        """The JSON of an answer under /api; Trouble when it is not 200."""
        try:
            status, answer = request(method, f"{self.url}/api{path}", form, body)
        except (OSError, http.client.HTTPException) as error:
            raise Trouble(f"{method} /api{path}: {error}\nThe node's last lines:\n{self.last_lines()}") from error
        if status != 200:
            raise Trouble(f"{method} /api{path}: expected 200, found {status}: {answer}")
        return answer

    def pipes(self):
        """Every pipe's effective config by id, upstream before downstream. Endpoints are left out: they never run."""
        configs = {pipe["_id"]: pipe["config"]["effective"] for pipe in self.call("GET", "/pipes")}
        writers = {}
        for identity, config in configs.items():
            writers.setdefault(config.get("sink", {}).get("dataset", identity), []).append(identity)
        ordered = {}

        def visit(identity, above):
            if identity in ordered or identity in above:
                return
            for upstream in sorted(writers.get(configs[identity].get("source", {}).get("dataset"), [])):
                visit(upstream, {*above, identity})
            ordered[identity] = configs[identity]

        for identity in sorted(configs):
            visit(identity, set())
        return {
            identity: config
            for identity, config in ordered.items()
            if not str(config.get("sink", {}).get("type", "")).endswith("_endpoint")
        }

    def pump(self, pipe, operation, **fields):
        """One operation of a pipe's pump; what the pump says about itself then."""
        return self.call("POST", f"/pipes/{pipe}/pump", form={"operation": operation, **fields})["runtime"]

    def run(self, pipe, operation="start"):
        """Runs a pipe to its end and returns the summary of that run."""
        path = f"/pipes/{pipe}/pump"
        before = self.stamps(self.call("GET", path)["runtime"])
        self.pump(pipe, operation)
        deadline = time.monotonic() + RUN_WITHIN_SECONDS
        while True:
            runtime = self.call("GET", path)["runtime"]
            if not runtime["is-running"] and self.stamps(runtime) != before:
                return runtime["last-run-summary"]
            if time.monotonic() > deadline:
                raise Trouble(f"{pipe} did not end its run within {RUN_WITHIN_SECONDS} s:\n{self.last_lines()}")
            time.sleep(LOOK_EVERY_SECONDS)

    @staticmethod
    def stamps(runtime):
        """What tells one run of a pipe from another."""
        return runtime.get("last-started"), runtime.get("last-run")

    def entities(self, dataset, **query):
        """What a dataset holds."""
        name = urllib.parse.quote(dataset, safe="")
        return self.call("GET", f"/datasets/{name}/entities?{urllib.parse.urlencode(query)}")

    def stop(self):
        end(self.process)
