"""What the tests share: stand-ins on free ports, the examples' services, plain HTTP."""

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import unittest
from pathlib import Path
from urllib.parse import urlencode, urlsplit

ROOT = Path(__file__).resolve().parents[2]
STANDINS = ROOT / "demo" / "standins"
sys.path[:0] = [str(STANDINS), str(ROOT / "demo")]

RUNNING = re.compile(r"Running on http://127\.0\.0\.1:(\d+)")
ANSWER_WITHIN_SECONDS = 30


class Reply:
    """A whole answer: `status`, `headers`, `text`, and `json` when the text is JSON."""

    def __init__(self, status, headers, text):
        self.status = status
        self.headers = headers
        self.text = text

    @property
    def json(self):
        return json.loads(self.text)


def ask(method, url, body=None, headers=None, **query):
    """One request on a connection of its own. http.client errors when the answer is cut."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=ANSWER_WITHIN_SECONDS)
    try:
        headers = dict(headers or {})
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        path = parts.path + ("?" + "&".join(filter(None, [parts.query, urlencode(query)])) if query or parts.query else "")
        connection.request(method, path, body.encode() if isinstance(body, str) else body, headers)
        # An answer that was cut off closes no socket by itself.
        with connection.getresponse() as answer:
            text = answer.read().decode()
            return Reply(answer.status, answer.headers, text)
    finally:
        connection.close()


class Running:
    """A stand-in that serves on a free port until `stop`."""

    def __init__(self, kind):
        self.standin = kind()
        self.server = self.standin.serve(port=0)
        self.url = self.server.url

    def control(self, operation, **order):
        reply = ask("POST", self.url + "/__control", {"operation": operation, **order})
        assert reply.status == 200, reply.text
        return reply.json

    def state(self):
        return ask("GET", self.url + "/__control").json

    def stop(self):
        self.standin.stopping.set()
        self.server.shutdown()
        self.server.server_close()


class Microservice:
    """An example's service as a process of its own, on a port that it chose."""

    def __init__(self, example, **environment):
        self.lines = []
        self.process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=ROOT / "examples" / example / "service",
            env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_PROXY": "*", "port": "0", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for line in self.process.stdout:
            self.lines.append(line)
            found = RUNNING.search(line)
            if found:
                self.url = f"http://127.0.0.1:{found[1]}"
                break
        else:
            raise AssertionError(f"{example} did not start:\n{''.join(self.lines)}")
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        self.reader.start()

    def stop(self):
        self.process.terminate()
        self.process.wait(ANSWER_WITHIN_SECONDS)
        self.reader.join(ANSWER_WITHIN_SECONDS)
        self.process.stdout.close()


def needs_node(case):
    """Skips the tests of a class without TAHINI, the path of a built node; with CI set they fail."""
    if os.environ.get("TAHINI"):
        return case
    if os.environ.get("CI"):
        def fail(self):
            self.fail("expected TAHINI, the path of a built node; it is not set")

        case.setUpClass = classmethod(lambda cls: None)
        case.setUp = fail
        return case
    return unittest.skip("SKIP: no TAHINI, the path of a built node")(case)
