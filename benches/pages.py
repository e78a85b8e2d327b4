#!/usr/bin/env python3
"""Serves records in pages over HTTP, on loopback, from memory.

    pages.py RECORDS PAGE MILLISECONDS

`GET /records?offset=N` answers PAGE records from the N-th on after so many milliseconds, and names the next offset
where there are more. `PUT /records/ID` takes what it is sent after the same time. Prints its port, and ends with its
standard input.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from entities import entities

RECORDS, PAGE, PAUSE = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000
SEED = 42
BODIES = {}


def fill():
    page, offset = [], 0
    for number, one in enumerate(entities(RECORDS, SEED), 1):
        page.append({"id": number, **{name: value for name, value in one.items() if not name.startswith("_")}})
        if len(page) == PAGE or number == RECORDS:
            body = {"records": page} | ({"next": number} if number < RECORDS else {})
            BODIES[offset] = json.dumps(body, separators=(",", ":")).encode()
            page, offset = [], number


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # A head and a body in one packet.
    wbufsize = 1 << 16

    def do_GET(self):
        time.sleep(PAUSE)
        offset = int(parse_qs(urlsplit(self.path).query).get("offset", ["0"])[0])
        self.answer(BODIES[offset])

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(PAUSE)
        self.answer(b"{}")

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    fill()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
