"""A node that tests start, kill and start again: the real binary in a process of its own."""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path


class Gone(Exception):
    """The node did not answer: whether it did what was asked, nobody knows."""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Node:
    def __init__(self, tahini, folder, components=(), arguments=(), data=None, limits=None):
        """Everything of the node lies in `folder`, but for its data where `data` says so; `limits` is called in the new process."""
        self.tahini, self.folder = Path(tahini), Path(folder)
        self.data, self.backups = Path(data or self.folder / "data"), self.folder / "backups"
        self.arguments, self.limits = list(arguments), limits
        self.port, self.process = free_port(), None
        self.env = {**os.environ, "TAHINI_MASTER_KEY_FILE": str(self.folder / "keys/master.key"), "XDG_CONFIG_HOME": str(self.folder / "keys")}
        self.project = self.folder / "project"
        for part in ("pipes", "systems"):
            (self.project / part).mkdir(parents=True, exist_ok=True)
        for component in components:
            part = "systems" if component["type"].startswith("system:") else "pipes"
            (self.project / part / f"{component['_id']}.conf.json").write_text(json.dumps(component))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self, seconds=60):
        command = [self.tahini, "serve", self.project, "--data", self.data, "--listen", f"127.0.0.1:{self.port}", "--backups", self.backups, "--log-format", "text", *self.arguments]
        log = (self.folder / "node.log").open("ab")
        self.process = subprocess.Popen([str(word) for word in command], env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=self.limits)
        log.close()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"the node ended with {self.process.returncode}:\n{self.said()[-3000:]}")
            try:
                if self.ask("GET", "/readyz")[0] == 200:
                    return self
            except Gone:
                time.sleep(0.02)
        raise AssertionError(f"the node is not ready after {seconds} s:\n{self.said()[-3000:]}")

    def kill(self):
        """As a power cut is for the process; what it wrote stays with the system."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds=120):
        """Asks it to end, and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def end(self):
        if self.process and self.process.poll() is None:
            self.kill()

    def said(self):
        return (self.folder / "node.log").read_text("utf-8", "replace")

    def ask(self, method, path, body=None, kind="application/json", seconds=60, headers=None):
        """The status, the headers and the whole body of an answer; an answer that breaks off is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request(method, path, body, {"Content-Type": kind, **(headers or {})})
            # An answer that was cut off closes no socket by itself.
            with connection.getresponse() as answer:
                return answer.status, dict((name.lower(), value) for name, value in answer.getheaders()), answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Gone(str(error)) from error
        finally:
            connection.close()

    def json(self, path, **asked):
        status, _, body = self.ask("GET", path, **asked)
        if status != 200:
            raise AssertionError(f"GET {path}: {status} {body.decode('utf-8', 'replace')[:500]}")
        return json.loads(body)

    def post(self, pipe, entities, **parameters):
        """Posts entities to a receiver; the status and the text of the answer."""
        query = urllib.parse.urlencode({name: str(value).lower() if isinstance(value, bool) else value for name, value in parameters.items()})
        status, _, body = self.ask("POST", f"/api/receivers/{pipe}/entities?{query}", json.dumps(entities))
        return status, body.decode("utf-8", "replace")

    def entities(self, dataset, **parameters):
        return self.json(f"/api/datasets/{dataset}/entities?{urllib.parse.urlencode(parameters)}")

    def latest(self, dataset, name="v", **parameters):
        """The value of each entity that is not deleted, by id."""
        return {e["_id"]: e.get(name) for e in self.entities(dataset, history="false", deleted="false", **parameters)}

    def operate(self, pipe, operation, **form):
        """An operation of a pipe's pump; the status and the text of the answer."""
        form = urllib.parse.urlencode({"operation": operation, **form})
        status, _, body = self.ask("POST", f"/api/pipes/{pipe}/pump", form, "application/x-www-form-urlencoded")
        return status, body.decode("utf-8", "replace")

    def run(self, pipe, seconds=60):
        """Runs a pipe and waits for its end; the pump as it is then."""
        until = time.monotonic() + seconds
        while True:
            before = self.json(f"/api/pipes/{pipe}/pump")["runtime"].get("last-run")
            status, text = self.operate(pipe, "start")
            if status == 200:
                break
            # A run that a signal began is over soon.
            if status != 409 or "is running" not in text or time.monotonic() > until:
                raise AssertionError(f"starting {pipe}: {status} {text}")
            time.sleep(0.02)
        while time.monotonic() < until:
            now = self.json(f"/api/pipes/{pipe}/pump")["runtime"]
            if not now.get("is-running") and now.get("last-run") != before:
                return now
            time.sleep(0.02)
        raise AssertionError(f"pipe {pipe} does not end")

    def command(self, *words, code=0):
        """Runs one of the program's commands; what it printed, both ways."""
        done = subprocess.run([str(self.tahini), *map(str, words)], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        if done.returncode != code:
            raise AssertionError(f"{words} ended with {done.returncode}, not {code}:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def memory(self):
        """Bytes of memory that are the node's own, without mapped files."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) * 1024


class Peak(threading.Thread):
    """The most own memory of a node while it is watched."""

    def __init__(self, node, every=0.002):
        """Looks at it again every so many seconds."""
        super().__init__(daemon=True)
        self.node, self.every, self.bytes, self.over = node, every, 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(self.every):
            self.bytes = max(self.bytes, self.node.memory())

    def taken(self):
        """Ends the watch; the bytes."""
        self.over.set()
        self.join()
        return self.bytes


def wait(what, done, seconds=120):
    """Asks again and again until the answer is true, and returns it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := done():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come about in {seconds} s")


def folder_bytes(folder):
    """What the files below a folder take; files may go meanwhile."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total
