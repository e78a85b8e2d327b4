"""What is outside of a node under test: sources that change, and a target that refuses some of what it is given."""

import contextlib
import http.server
import json
import threading
import urllib.parse
import zlib


class Source:
    """Entities that change all the time, in the order of their changes; every value is given once."""

    def __init__(self, dice, ids):
        self.lock, self.dice, self.ids = threading.Lock(), dice, ids
        self.latest, self.updated = {}, 0

    def change(self, ids=None):
        """Changes these entities, or any one; the values that they have now."""
        with self.lock:
            return self._change(ids or [self.dice.choice(self.ids)])

    def _change(self, ids):
        for id in ids:
            self.updated += 1
            self.latest[id] = (self.updated, self.updated)
        return {id: self.latest[id][1] for id in ids}

    def burst(self, ids, told):
        """Changes many at once. `told` hears of the values before anybody can read them; returned is what was before, and the values."""
        with self.lock:
            before = {id: self.latest.get(id) for id in ids}
            told({id: self.updated + 1 + at for at, id in enumerate(ids)})
            return before, self._change(ids)

    def take_back(self, before):
        """As if a burst had not been. What changed since stays."""
        with self.lock:
            for id, known in before.items():
                if known is None:
                    self.latest.pop(id, None)
                else:
                    self.latest[id] = known

    def drop(self, id):
        """The entity is gone, which only those see who read everything."""
        with self.lock:
            self.latest.pop(id, None)

    def since(self, since):
        with self.lock:
            found = sorted((updated, id, v) for id, (updated, v) in self.latest.items() if updated > since)
        return json.dumps([{"_id": id, "_updated": updated, "v": v} for updated, id, v in found]).encode()

    def values(self):
        with self.lock:
            return {id: v for id, (_, v) in self.latest.items()}


class Target:
    """Takes whole requests or none, and remembers. Values of an entity that go down are what must not be."""

    def __init__(self):
        self.lock, self.refusing = threading.Lock(), True
        self.values, self.highest = {}, {}
        self.taken, self.refused, self.wrong = 0, 0, []

    @staticmethod
    def refuses(id, v):
        return (zlib.crc32(id.encode()) + 7 * v) % 11 == 0

    def take(self, entities):
        """The status of the answer."""
        with self.lock:
            living = [entity for entity in entities if not entity.get("_deleted")]
            if self.refusing and any(self.refuses(entity["_id"], entity["v"]) for entity in living):
                self.refused += 1
                return 422
            for entity in entities:
                self.see(entity["_id"], entity.get("v", -1), entity.get("_deleted", False))
            self.taken += 1
            return 200

    def see(self, id, v, deleted):
        known = self.highest.get(id, -1)
        if v < known:
            self.wrong.append(f"the target was given {id} as {v} after {known}")
        self.highest[id] = max(v, known)
        if deleted:
            self.values.pop(id, None)
        else:
            self.values[id] = v


class Outside:
    """Sources by name over HTTP, and a target of which requests are taken one after the other, as they came: what a
    node sent before it was killed comes before what the next one sends."""

    def __init__(self, sources, target):
        class Give(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked = urllib.parse.urlsplit(self.path)
                query = urllib.parse.parse_qs(asked.query)
                body = sources[asked.path.strip("/")].since(int(query.get("since", ["-1"])[0]))
                answer(self, 200, body)

            def log_message(self, *_):
                pass

        class Take(http.server.BaseHTTPRequestHandler):
            # Whoever connects and says nothing keeps nobody waiting.
            timeout = 2

            def do_POST(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else read_chunks(self.rfile)
                try:
                    entities = json.loads(body)
                except ValueError:  # the node was killed in the middle of it
                    return answer(self, 400, b"{}")
                answer(self, target.take(entities), b"{}")

            def log_message(self, *_):
                pass

        giving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Give)
        giving.daemon_threads = True
        taking = Quiet(("127.0.0.1", 0), Take)
        self.servers = [giving, taking]
        for server in self.servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.gives, self.takes = (f"http://127.0.0.1:{server.server_port}/%s" for server in self.servers)

    def end(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()


class Quiet(http.server.HTTPServer):
    """A client that goes away in the middle is no news."""

    request_queue_size = 64

    def handle_error(self, *_):
        pass


def read_chunks(file):
    body = b""
    while line := file.readline().strip():
        length = int(line.split(b";")[0], 16)
        body += file.read(length)
        file.readline()
        if not length:
            break
    return body


def answer(handler, status, body):
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    with contextlib.suppress(OSError):
        handler.wfile.write(body)
