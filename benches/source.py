#!/usr/bin/env python3
"""Serves files of entities over HTTP, on loopback, from the page cache to the socket.

    source.py FOLDER

`GET /NAME` answers FOLDER/NAME.json whole. `GET /NAME?since=S` answers FOLDER/NAME.changes.json,
or an empty list where there is none: the entities that changed after the file was written. Prints
its port, and ends with its standard input.
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

FOLDER = Path(sys.argv[1])


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = urlsplit(self.path)
        since = parse_qs(asked.query).get("since")
        path = FOLDER / f"{asked.path.strip('/')}{'.changes' if since else ''}.json"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        if not path.exists():
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")
            return
        with path.open("rb") as file:
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            self.wfile.flush()
            self.connection.sendfile(file)

    def log_message(self, *_):
        pass


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
