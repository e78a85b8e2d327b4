#!/usr/bin/env python3
"""Plays `tahini serve` for the tests of the driver: the few answers that it reads.

Its runs are those of demo/expected, except that it really reads HubSpot's contacts,
so that a broken stand-in shows. STUB spoils something: `number` (a count of the
second run), `extra` (a pipe too many), `death` (it ends during the first run),
`deaf` (it never gets ready).
"""

import json
import os
import re
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[2]
STUB = os.environ.get("STUB")
TABLES = [json.loads((ROOT / "demo/expected" / name).read_text("utf-8")) for name in ("first.json", "second.json")]
EXAMPLES = ["hubspot", "github", "write-back", "enrich"]
FILES = [file for name in EXAMPLES for file in (ROOT / "examples" / name / "pipes").glob("*.conf.json")]
CONFIGS = [json.loads(file.read_text("utf-8")) for file in sorted(FILES)]
runs = {}
running = set()
variables = {}


def contacts_are_whole():
    """True when HubSpot's stand-in gives all its pages."""
    after = "0"
    while after:
        url = f"{variables['hubspot-base-url']}/objects/contacts?limit=100&after={after}"
        token = json.loads((ROOT / "examples/hubspot/secrets.json").read_text("utf-8"))["hubspot-api-key"]
        try:
            with urlopen(Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=10) as answer:
                page = json.load(answer)
        except (OSError, ValueError, EOFError) as error:
            print(f"contacts: {error}", flush=True)
            return False
        except Exception as error:  # http.client's own errors, IncompleteRead among them.
            print(f"contacts: {error!r}", flush=True)
            return False
        after = page.get("paging", {}).get("next", {}).get("after")
    return True


def summary(pipe, number):
    """The summary of a pipe's first or second run."""
    row = next((row for row in TABLES[number - 1] if row["pipe"] == pipe), TABLES[0][0])
    result = {
        "sync_type": row["kind"], "entities_read": row["read"], "changed": row["changed"], "deleted": row["deleted"],
        "failed": row["failed"], "pipe_offset": row["offset"], "total_time": "0.01", "success": True, "message": None,
    }
    if pipe == "hubspot-contacts-collect" and not contacts_are_whole():
        result.update(success=False, entities_read=0, changed=0, message="the answer was cut")
    if STUB == "number" and number == 2 and pipe == "people":
        result["entities_read"] += 1
    return result


class Exchange(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/readyz":
            return self.send(503 if STUB == "deaf" else 200, {})
        if self.path == "/api/pipes":
            extra = [{"_id": "surplus", "source": {"type": "embedded"}}] if STUB == "extra" else []
            return self.send(200, [{"_id": c["_id"], "config": {"effective": c}} for c in CONFIGS + extra])
        pipe = unquote(re.fullmatch(r"/api/pipes/([^/]+)/pump", self.path)[1])
        busy = pipe in running
        running.discard(pipe)
        number = runs.get(pipe, 0)
        runtime = {"is-running": busy, "last-run": number}
        if number and not busy:
            runtime["last-run-summary"] = summary(pipe, number)
        return self.send(200, {"_id": f"pump:{pipe}", "runtime": runtime})

    def do_POST(self):
        pipe = unquote(re.fullmatch(r"/api/pipes/([^/]+)/pump", self.path)[1])
        form = self.rfile.read(int(self.headers["Content-Length"]))
        assert form == b"operation=start", form
        if STUB == "death":
            print("the stub gives up", flush=True)
            os._exit(3)
        runs[pipe] = runs.get(pipe, 0) + 1
        running.add(pipe)
        self.send(200, {"_id": f"pump:{pipe}", "runtime": {"is-running": True}})

    def send(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    command = sys.argv[1:]
    assert command[0] == "serve" and "--no-schedule" in command, command
    assert len([part for part in command if part == "--secrets"]) == 4, command
    assert [Path(part).name for part in command[-4:]] == EXAMPLES, command
    variables.update(json.loads(Path(command[command.index("--env") + 1]).read_text("utf-8")))
    host, port = command[command.index("--listen") + 1].split(":")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ThreadingHTTPServer((host, int(port)), Exchange).serve_forever()


if __name__ == "__main__":
    main()
