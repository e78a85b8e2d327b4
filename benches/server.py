#!/usr/bin/env python3
"""Serves FOLDER on loopback; with `since` in the query, a file's `.changes` instead of the file."""

import http.server
import os
import shutil
import sys
from urllib.parse import parse_qs, urlsplit


class Files(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        path = os.path.join(sys.argv[1], os.path.basename(url.path))
        if "since" in parse_qs(url.query):
            path += ".changes"
        with open(path, "rb") as body:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(os.fstat(body.fileno()).st_size))
            self.end_headers()
            shutil.copyfileobj(body, self.wfile, 1 << 20)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
print(server.server_address[1], flush=True)
server.serve_forever()
