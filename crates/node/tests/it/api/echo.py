"""A microservice that answers with what it was asked. Standard library only."""
import http.server
import json
import os
import threading

go = threading.Event()


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self):
        body = self.read()
        if self.path == "/environment":
            self.answer(200, dict(os.environ))
        elif self.path.startswith("/status/"):
            self.answer(int(self.path.rsplit("/")[-1]), {})
        elif self.path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.chunk(b"first")
            go.wait(60)
            self.chunk(b"second")
            self.chunk(b"")
        elif self.path == "/go":
            go.set()
            self.answer(200, {})
        else:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.answer(200, {"method": self.command, "path": self.path, "headers": headers, "body": body})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def read(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body.decode()

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", "theirs=1")
        self.send_header("Content-Security-Policy", "script-src *")
        self.send_header("Content-Security-Policy", "sandbox allow-same-origin allow-scripts")
        self.send_header("X-Content-Type-Options", "sniff")
        self.send_header("Clear-Site-Data", '"*"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        print("asked for " + self.path, flush=True)


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Echo).serve_forever()
