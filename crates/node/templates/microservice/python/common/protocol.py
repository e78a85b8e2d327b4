"""The JSON protocols over HTTP: entities as streams, in and out, one at a time.

Nothing but Python's standard library, and nothing here that is particular to this service: what it does stands in
service.py. Memory does not grow with the number of entities: what comes is taken apart as it arrives, and what goes is
written as it is made.
"""

import codecs
import itertools
import json
import logging
import os
import re
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

CHUNK_BYTES = 64 * 1024
LARGEST_ENTITY_BYTES = 16 * 1024 * 1024
# After a refusal this much of a body is still read, so that its sender sees the answer.
DRAINED_BYTES = 4 * 1024 * 1024
SPACE = re.compile(r"[ \t\r\n]*")

log = logging.getLogger("service")


class Refused(Exception):
    """The request is wrong, and sending it again would not help. The text says what was expected and what came."""


def pull(changes):
    """A route that gives entities: `changes(since)` yields those changed after `since`, or all where it is None."""

    def answer(request):
        limit = request.query.get("limit")
        if limit is not None and not limit.isdecimal():
            raise Refused(f"limit: expected a number, found {limit!r}")
        entities = changes(request.query.get("since") or None)
        request.send(entities if limit is None else itertools.islice(entities, int(limit)))

    return answer


def push(take, group=100):
    """A route that takes entities: `take(entities)` gets a list of at most `group`, often; all of them have an _id.

    The answer says 200 when every group was taken. The last batch of every run is empty, and then `take` is not called.
    """

    def answer(request):
        count = 0
        for entities in groups(with_ids(request.entities()), group):
            take(entities)
            count += len(entities)
        log.info("took %d entities", count)
        request.reply(200, {})

    return answer


def transform(change, group=100):
    """A route that answers entities with what they become: `change(entities)` gets a list and returns one."""

    def answer(request):
        changed = (change(entities) for entities in groups(request.entities(), group))
        request.send(itertools.chain.from_iterable(changed))

    return answer


def groups(entities, size):
    """Lists of at most `size`, until there are no more."""
    entities = iter(entities)
    while group := list(itertools.islice(entities, size)):
        yield group


def with_ids(entities):
    for entity in entities:
        if not isinstance(entity.get("_id"), str):
            raise Refused(f"expected entities with a string _id, found {entity.get('_id')!r}")
        yield entity


def entities_in(read):
    """The objects of a JSON array, each as soon as it is whole; `read(size)` gives the next bytes, b"" at the end."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    decoder = json.JSONDecoder()
    text, at, size = "", 0, CHUNK_BYTES

    def more():
        """Adds what comes next behind what is not taken yet; False at the end."""
        nonlocal text, at
        chunk = read(size)
        text, at = text[at:] + decode(chunk, not chunk), 0
        return bool(chunk)

    def peek():
        """The next character that is no white space; "" at the end."""
        nonlocal at
        while True:
            at = SPACE.match(text, at).end()
            if at < len(text):
                return text[at]
            if not more():
                return ""

    def expect(wanted):
        nonlocal at
        found = peek()
        if found == "" or found not in wanted:
            raise Refused(f"expected a JSON array of entities, found {text[at:at + 20] or 'the end'!r} where one of {wanted} belongs")
        at += 1
        return found

    try:
        expect("[")
        if peek() == "]":
            at += 1
        else:
            while True:
                if peek() != "{":
                    raise Refused(f"expected an entity, found {text[at:at + 20] or 'the end'!r}")
                while True:
                    try:
                        entity, at = decoder.raw_decode(text, at)
                        break
                    except ValueError as error:
                        # Not whole yet, or wrong: that shows when there is no more.
                        if len(text) - at > LARGEST_ENTITY_BYTES:
                            raise Refused(f"expected entities of at most {LARGEST_ENTITY_BYTES} bytes: {error}") from error
                        size = min(size * 2, LARGEST_ENTITY_BYTES)
                        if not more():
                            raise Refused(f"expected a whole JSON array of entities: {error}") from error
                size = CHUNK_BYTES
                yield entity
                if expect(",]") == "]":
                    break
        if peek() != "":
            raise Refused(f"expected nothing behind the array, found {text[at:at + 20]!r}")
    except (UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"expected JSON in UTF-8: {error}") from error


class Request(BaseHTTPRequestHandler):
    """One request; `routes` of the server says who answers it."""

    # So that an answer has a marked end, and a cut one can be told from a whole one.
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.begun = False
        self.body = self.body_reader()
        url = urlsplit(self.path)
        self.query = dict(parse_qsl(url.query, keep_blank_values=True))
        route = self.server.routes.get(f"{self.command} {url.path}")
        try:
            if route is None:
                known = any(name.endswith(f" {url.path}") for name in self.server.routes)
                self.reply(405 if known else 404, {"message": f"expected one of {', '.join(self.server.routes)}"})
            else:
                route(self)
        except Refused as refused:
            self.fail(400, refused)
        except (BrokenPipeError, ConnectionResetError):
            log.info("%s: the other side hung up", self.path)
            self.close_connection = True
        except Exception as error:
            log.exception("%s %s failed", self.command, self.path)
            self.fail(500, error)

    do_GET = do_POST = answer

    def fail(self, status, why):
        """An error answer; where the array has begun, a cut: one that ends neatly would say that these were all."""
        self.close_connection = True
        if self.begun:
            log.error("%s was broken off: %s", self.path, why)
            return
        log.error("%s %s: %s", self.command, self.path, why)
        drained = 0
        while drained < DRAINED_BYTES and (chunk := self.body(CHUNK_BYTES)):
            drained += len(chunk)
        self.reply(status, {"message": str(why) or type(why).__name__})

    def reply(self, status, value):
        """A small answer: `value` as JSON."""
        text = json.dumps(value, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)

    def send(self, entities):
        """A large answer: a JSON array, written as the entities come."""
        entities = iter(entities)
        # The first is there before the status, so that a wrong parameter or password is an error answer.
        first = list(itertools.islice(entities, 1))
        self.begun = True
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        count, waiting = 0, bytearray(b"[")
        for entity in itertools.chain(first, entities):
            waiting += b"," if count else b""
            waiting += json.dumps(entity, ensure_ascii=False, separators=(",", ":")).encode()
            count += 1
            if len(waiting) >= CHUNK_BYTES:
                self.write_chunk(waiting)
                waiting.clear()
        waiting += b"]"
        self.write_chunk(waiting)
        self.write_chunk(b"")
        log.info("%s: sent %d entities", self.path, count)

    def write_chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def entities(self):
        """The entities of the body, one at a time."""
        return entities_in(self.body)

    def body_reader(self):
        """A function that gives the next bytes of the body, b"" at its end."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = self.chunks()
            return lambda _: next(chunks, b"")
        left = int(self.headers.get("Content-Length") or 0)

        def read(size):
            nonlocal left
            data = self.rfile.read1(min(size, left)) if left else b""
            if left and not data:
                raise Refused("expected the rest of the body, found the end of the connection")
            left -= len(data)
            return data

        return read

    def chunks(self):
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            data = self.rfile.read(size)
            if len(data) < size:
                raise Refused("expected the rest of a chunk, found the end of the connection")
            self.rfile.readline()
            yield data
        while self.rfile.readline().strip():
            pass

    def log_message(self, *_):
        """Every route says itself what it did."""


class Server(ThreadingHTTPServer):
    """A server of `routes`: "GET /path" to a function that gets the request."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, routes, host="127.0.0.1", port=0):
        super().__init__((host, port), Request)
        self.routes = routes

    def handle_error(self, request, client_address):
        log.info("a connection of %s ended early: %s", client_address[0], sys.exc_info()[1])


def serve(routes):
    """Serves until SIGTERM, on PORT and, where HOST does not say otherwise, for this machine alone."""
    logging.basicConfig(stream=sys.stdout, level=os.environ.get("LOG_LEVEL", "INFO"), format="%(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = Server(routes, os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "5000")))
    log.info("listening on port %d", server.server_address[1])
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
