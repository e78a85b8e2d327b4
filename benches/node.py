"""A node to measure: started on loopback, asked over its API, watched through /proc."""

import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

READY_WITHIN_SECONDS = 60
RUN_WITHIN_SECONDS = 900
QUIET_WITHIN_SECONDS = 60
QUIET_SECONDS = 2.5
LOOK_EVERY_SECONDS = 0.02
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Memory(threading.Thread):
    """The peaks of a process's memory, in MB: its own (anonymous), and mapped pages of files."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.status = Path(f"/proc/{pid}/status")
        self.peak = {"RssAnon": 0, "RssFile": 0}
        self.start()

    def run(self):
        while True:
            try:
                text = self.status.read_text()
            except OSError:
                return  # The process has ended.
            for line in text.splitlines():
                name, _, rest = line.partition(":")
                if name in self.peak:
                    self.peak[name] = max(self.peak[name], int(rest.split()[0]) // 1024)
            time.sleep(LOOK_EVERY_SECONDS)

    def taken(self):
        """The peaks since the last time this was asked."""
        peak, self.peak = self.peak, {"RssAnon": 0, "RssFile": 0}
        return peak


class Node:
    """`tahini serve PROJECT` with pumps that run on request only."""

    def __init__(self, tahini, project, data, port):
        environment = {**os.environ, "TAHINI_MASTER_KEY_FILE": str(Path(data).with_suffix(".key"))}
        self.url = f"http://127.0.0.1:{port}"
        self.log = Path(data).with_suffix(".log").open("wb")
        self.process = subprocess.Popen(
            [str(tahini), "serve", "--data", str(data), "--listen", f"127.0.0.1:{port}", "--no-schedule", str(project)],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=environment,
        )
        self.memory = Memory(self.process.pid)
        self.wait_until_ready()

    def wait_until_ready(self):
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                self.ask("/readyz")
                return
            except OSError:
                time.sleep(LOOK_EVERY_SECONDS)  # Not listening yet, or not ready.
        raise SystemExit(f"the node did not become ready; its log: {self.log.name}\n{Path(self.log.name).read_text()[-2000:]}")

    def ask(self, path, form=None):
        text = self.text(path, form)
        return json.loads(text) if path.startswith("/api/") else text

    def text(self, path, form=None):
        data = urllib.parse.urlencode(form).encode() if form else None
        with OPENER.open(self.url + path, data, timeout=60) as answer:
            return answer.read().decode()

    def run(self, pipe, operation="start"):
        """One run, measured: its summary, the node's processor seconds and its peaks of memory."""
        self.memory.taken()
        spent, path = self.spent(), f"/api/pipes/{pipe}/pump"
        before = self.ask(path)["runtime"].get("last-run")
        begun = time.monotonic()
        self.ask(path, {"operation": operation})
        while True:
            runtime = self.ask(path)["runtime"]
            if not runtime["is-running"] and runtime.get("last-run") != before:
                break
            if time.monotonic() - begun > RUN_WITHIN_SECONDS:
                raise SystemExit(f"{pipe} did not end within {RUN_WITHIN_SECONDS} s")
            time.sleep(LOOK_EVERY_SECONDS)
        summary = runtime["last-run-summary"]
        if not summary["success"]:
            raise SystemExit(f"{pipe} failed: {summary['message']}")
        run = {**summary, "wall": time.monotonic() - begun, **self.since(spent)}
        # What the run leaves to be done behind it, the index above all, is its cost as well.
        self.wait_until_quiet()
        return {**run, "cpu_whole": self.since(spent)["cpu"], **self.memory.taken()}

    def wait_until_quiet(self):
        """Waits until the node has done nothing for longer than a store waits before it writes an index."""
        deadline = time.monotonic() + QUIET_WITHIN_SECONDS
        since, known = time.monotonic(), self.cpu_seconds()
        while time.monotonic() - since < QUIET_SECONDS and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_SECONDS)
            now = self.cpu_seconds()
            if now - known > 0.03:
                since, known = time.monotonic(), now

    def read(self, path):
        """Reads an answer to its end: its length, seconds, and what the node spent on it."""
        self.memory.taken()
        spent, begun, length = self.spent(), time.monotonic(), 0
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=RUN_WITHIN_SECONDS)
        connection.request("GET", path)
        answer, into = connection.getresponse(), bytearray(1 << 20)
        while got := answer.readinto(into):
            length += got
        seconds = time.monotonic() - begun
        connection.close()
        return {"status": answer.status, "bytes": length, "total_time": seconds, **self.since(spent), **self.memory.taken()}

    def spent(self):
        """What the process has used so far: processor seconds, syncs of the store, bytes that went to the disk."""
        syncs = re.search(r"^tahini_store_syncs_total (\S+)$", self.text("/api/metrics"), flags=re.MULTILINE)
        io = dict(line.split(": ") for line in Path(f"/proc/{self.process.pid}/io").read_text().splitlines())
        return {"cpu": self.cpu_seconds(), "syncs": int(float(syncs.group(1))), "written": int(io["write_bytes"])}

    def since(self, before):
        return {name: now - before[name] for name, now in self.spent().items()}

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.log.close()
