"""What the stand-ins share: HTTP, faults on request, counters and the control endpoint.

A stand-in plays an outside API on loopback, from the standard library alone, so
that it starts in a moment. What it answers lives in memory and is the same after
every start. `POST /__control` bends it, `GET /__control` shows what it has seen;
neither asks for a token, because only tests and the demo talk to them.
"""

import json
import socketserver
import threading
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

LOOPBACK = "127.0.0.1"
CONTROL = "/__control"
FAULTS = ("status", "slow", "truncate", "truncate-chunk", "truncate-json", "disconnect")
REQUESTS_KEPT = 1000


@dataclass
class Request:
    """One request. `query` keeps the last value of a repeated parameter."""

    method: str
    path: str
    query: dict
    headers: object
    body: bytes

    def json(self):
        """The body as JSON; Refused with 400 when it is none."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Refused(400, {"message": f"The body is not JSON: {error}"}) from error


@dataclass
class Answer:
    """One answer. `body` is any JSON value, or None for an empty body."""

    status: int
    body: object = None
    headers: dict = field(default_factory=dict)


class Refused(Exception):
    """Ends a request with an error answer."""

    def __init__(self, status, body, headers=None):
        super().__init__(body)
        self.answer = Answer(status, body, headers or {})


@dataclass
class Fault:
    """Something that goes wrong `count` times, after `after` requests went well.

    `path` limits it to the requests whose path starts so. `seconds` belongs to
    `slow`; `status` and `retry_after` (seconds) belong to `status`.
    """

    kind: str
    count: int = 1
    after: int = 0
    path: str = ""
    seconds: float = 1.0
    status: int = 429
    retry_after: float | None = None


def instant(text):
    """An ISO 8601 instant with a zone, as an aware datetime in UTC."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"expected an instant with a zone, found {text!r}")
    return moment.astimezone(timezone.utc)


class StandIn:
    """The base of every stand-in. A subclass answers, edits and deletes.

    Every method that a subclass adds runs under `lock`, one request at a time.
    """

    name = "stand-in"
    port = 0

    def __init__(self):
        self.lock = threading.RLock()
        self.stopping = threading.Event()
        self.reset()

    def reset(self):
        """Start data, no faults, counters at zero."""
        with self.lock:
            self.faults = []
            self.requests = []
            self.total = 0
            self.by_status = {}
            self.load()

    # What a subclass provides.

    def load(self):
        """Fills the stand-in with its start data."""

    def answer(self, request):
        """The answer to one authorised or unauthorised request."""
        raise NotImplementedError

    def counters(self):
        """What `GET /__control` shows beside the requests."""
        return {}

    def edit(self, identity, properties, at):
        """Changes one record as of `at`, an aware datetime; KeyError when there is none."""
        raise KeyError(identity)

    def delete(self, identity):
        """Removes one record; KeyError when there is none."""
        raise KeyError(identity)

    def settings(self, values):
        """Changes limits of this stand-in; KeyError for one that it does not have."""
        for name in values:
            raise KeyError(name)

    # What all share.

    def fault_for(self, request):
        """The fault that meets this request, or None. Uses one of its counts up."""
        for fault in self.faults:
            if not request.path.startswith(fault.path):
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            fault.count -= 1
            if fault.count <= 0:
                self.faults.remove(fault)
            return fault
        return None

    def respond(self, request):
        """Answer and fault for one request that is not for the control endpoint."""
        with self.lock:
            fault = self.fault_for(request)
            if fault and fault.kind == "status":
                answer = self.fault_status(fault)
            else:
                try:
                    answer = self.answer(request)
                except Refused as refusal:
                    answer = refusal.answer
            self.total += 1
            status = str(answer.status)
            self.by_status[status] = self.by_status.get(status, 0) + 1
            self.requests.append(
                {"method": request.method, "path": request.path, "query": request.query, "status": answer.status}
            )
            del self.requests[:-REQUESTS_KEPT]
            return answer, fault

    @staticmethod
    def fault_status(fault):
        headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
        return Answer(fault.status, {"status": "error", "message": "A fault was asked for."}, headers)

    def control(self, request):
        """The control endpoint."""
        with self.lock:
            if request.method == "GET":
                return Answer(200, self.state())
            if request.method != "POST":
                return Answer(405, {"message": "Expected GET or POST."})
            try:
                order = request.json()
                return Answer(200, self.obey(order.pop("operation"), order))
            except Refused as refusal:
                return refusal.answer
            except KeyError as error:
                return Answer(404, {"message": f"There is no {error}."})
            except (TypeError, ValueError, AttributeError) as error:
                return Answer(400, {"message": f"The order makes no sense: {error}"})

    def obey(self, operation, order):
        if operation == "fault":
            fault = Fault(**order)
            if fault.kind not in FAULTS:
                raise ValueError(f"expected a fault of {', '.join(FAULTS)}; found {fault.kind!r}")
            self.faults.append(fault)
        elif operation == "clear-faults":
            self.faults.clear()
        elif operation == "edit":
            at = instant(order["at"]) if "at" in order else datetime.now(timezone.utc)
            self.edit(order["id"], order.get("properties", {}), at)
        elif operation == "delete":
            self.delete(order["id"])
        elif operation == "settings":
            self.settings(order)
        elif operation == "reset":
            self.reset()
        else:
            raise ValueError(
                "expected operation fault, clear-faults, edit, delete, settings or reset; "
                f"found {operation!r}"
            )
        return self.state()

    def state(self):
        return {
            "name": self.name,
            "requests": {"total": self.total, "by_status": self.by_status, "latest": self.requests},
            "faults": [vars(fault) for fault in self.faults],
            **self.counters(),
        }

    def serve(self, port=None, host=LOOPBACK):
        """Binds and starts answering in a thread. OSError when the port is taken."""
        server = Server((host, self.port if port is None else port), exchange_for(self))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        return server


class Server(ThreadingHTTPServer):
    """A threading server that looks up no host name when it binds: that can take seconds."""

    daemon_threads = True
    request_queue_size = 128

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    @property
    def url(self):
        """The base URL, without a slash at its end."""
        return f"http://{self.server_name}:{self.server_port}"


def exchange_for(standin):
    """The request class of `http.server`, bound to one stand-in."""

    class Exchange(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # A head and a body go out in two packets; without this the second waits 40 ms.
        disable_nagle_algorithm = True

        def exchange(self):
            length = int(self.headers.get("Content-Length") or 0)
            url = urlsplit(self.path)
            query = dict(parse_qsl(url.query, keep_blank_values=True))
            request = Request(self.command, url.path, query, self.headers, self.rfile.read(length))
            if request.path == CONTROL:
                self.send(standin.control(request))
                return
            answer, fault = standin.respond(request)
            kind = fault.kind if fault else None
            if kind == "slow":
                standin.stopping.wait(fault.seconds)
            elif kind == "disconnect":
                self.close_connection = True
                return
            self.send(answer, kind)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = exchange

        def send(self, answer, fault=None):
            body = b"" if answer.body is None else json.dumps(answer.body, ensure_ascii=False).encode()
            sent = body[: len(body) // 2] if fault and fault.startswith("truncate") else body
            chunked = fault == "truncate-chunk"
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json;charset=utf-8")
            if fault and fault.startswith("truncate"):
                self.send_header("Connection", "close")
            if chunked:
                self.send_header("Transfer-Encoding", "chunked")
                sent = f"{len(sent):x}\r\n".encode() + sent + b"\r\n"
            elif answer.status != 204:
                announced = sent if fault == "truncate-json" else body
                self.send_header("Content-Length", str(len(announced)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_):
            """Says nothing: the counters tell what was asked."""

    return Exchange
