"""What the tests share: the service on a free port, and plain HTTP."""

import http.client
import json
import threading
import unittest

from protocol import Server


class ServiceCase(unittest.TestCase):
    """A test with a service of `routes`; call `start` first."""

    def start(self, routes):
        self.server = Server(routes)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    def ask(self, method, path, body=None):
        """Status and JSON of an answer; http.client.IncompleteRead where it was cut off."""
        connection = http.client.HTTPConnection(*self.server.server_address, timeout=30)
        self.addCleanup(connection.close)
        text = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, text)
        # An answer that was cut off closes no socket by itself.
        with connection.getresponse() as answer:
            return answer.status, json.loads(answer.read())
