"""A microservice that behaves, or misbehaves, as its environment and its callers say.

Standard library only: it runs as a local process and in a bare Python image.
"""
import http.server
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

BORN = str(uuid.uuid4())
MODE = os.environ.get("MODE", "")


class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        asked = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/born":
            self.answer(BORN)
        elif url.path == "/env":
            self.answer(dict(os.environ))
        elif url.path == "/group":
            self.answer(os.getpgrp())
        elif url.path == "/say":
            print(asked["line"], file=sys.stderr if "err" in asked else sys.stdout, flush=True)
            self.answer("said")
        elif url.path == "/peer":
            with urllib.request.urlopen(os.environ[asked["variable"]] + "/born", timeout=10) as peer:
                self.answer(json.load(peer))
        elif url.path == "/node":
            self.answer(self.ask_node(asked))
        elif url.path == "/pour":
            self.send_response(200)
            self.end_headers()
            left = int(asked["bytes"])
            while left:
                self.wfile.write(b"x" * min(left, 1 << 20))
                left -= min(left, 1 << 20)
        elif url.path == "/resolve":
            self.answer(socket.gethostbyname(asked["host"]))
        elif url.path == "/exit":
            print("leaving now", flush=True)
            os._exit(int(asked["code"]))
        elif url.path == "/kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif url.path == "/eat":
            eat()
        elif url.path in ("/half", "/slow"):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(1 << 30))
            self.end_headers()
            self.wfile.write(b'[{"_id": "1"},' + b" " * (1 << 20))
            self.wfile.flush()
            print("said half of it", flush=True)
            eat() if url.path == "/half" else threading.Event().wait()
        elif url.path == "/flood":
            line = b"x" * 199 + b"\n"
            for _ in range(int(asked["bytes"]) // (len(line) * 1000)):
                os.write(1, line * 1000)
            print("all is written", flush=True)
            self.answer("flooded")
        else:
            self.send_error(404)

    def do_POST(self):
        if self.path.startswith("/eat"):
            eat()
        left = length = int(self.headers["Content-Length"])
        if self.path == "/parrot":
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
        while left:
            part = self.rfile.read1(min(left, 1 << 20))
            left -= len(part)
            if self.path == "/parrot":
                self.wfile.write(part)
                self.wfile.flush()
        if self.path != "/parrot":
            self.answer(length)

    def ask_node(self, asked):
        """The status that the node answers with, under its own address or another name, and the text."""
        base = os.environ[asked.get("base", "TAHINI_URL")]
        if "as" in asked:
            base = base.replace("tahini", asked["as"])
        request = urllib.request.Request(base + asked["path"])
        if "token" in asked:
            request.add_header("Authorization", "Bearer " + asked["token"])
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return [answer.status, answer.read().decode()]
        except urllib.error.HTTPError as error:
            return [error.code, error.read().decode()]

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def eat():
    """Takes memory until there is none."""
    eaten = []
    while True:
        eaten.append(b"x" * (8 << 20))


def hold(port, name):
    """A connection that stays open for as long as this process lives."""
    line = socket.create_connection(("127.0.0.1", int(port)))
    line.sendall(name.encode())
    return line


if MODE == "dies":
    print("cannot find my configuration", file=sys.stderr)
    sys.exit(3)
if MODE == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "LIFELINE" in os.environ:
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        grandchild = hold(os.environ["LIFELINE"], "g")
        while True:
            time.sleep(3600)
    line = hold(os.environ["LIFELINE"], "s")
if MODE == "deaf":
    print("listening to nobody", flush=True)
    threading.Event().wait()
host, port = "", int(os.environ.get("PORT") or 5000)
if MODE == "elsewhere":
    port = 0
if MODE == "inside":
    host = "127.0.0.1"
server = http.server.ThreadingHTTPServer((host, port), Service)
print("at your service", *(server.server_address if port == 0 else ()), flush=True)
server.serve_forever()
