"""python3 -m unittest"""

import http.client
import unittest

import service
from testing import ServiceCase

ADA = {"id": "1", "changed": 1, "name": "Ada"}
GRACE = {"id": "2", "changed": 2, "name": "Grace"}
GONE = {"id": "1", "changed": 3, "deleted": True}


class Source(ServiceCase):
    def setUp(self):
        self.start(service.ROUTES)
        self.records, service.records = service.records, self
        self.addCleanup(lambda: setattr(service, "records", self.records))
        self.given = [ADA, GRACE, GONE]

    def changes(self, since):
        """Plays the system outside."""
        for record in self.given:
            if isinstance(record, Exception):
                raise record
            if since is None or record["changed"] > since:
                yield record

    def test_everything(self):
        status, entities = self.ask("GET", "/entities")
        self.assertEqual(status, 200)
        self.assertEqual([(entity["_id"], entity["_updated"]) for entity in entities], [("1", 1), ("2", 2), ("1", 3)])
        self.assertEqual(entities[0]["name"], "Ada")

    def test_what_is_gone_is_deleted(self):
        self.assertEqual(self.ask("GET", "/entities?since=2"), (200, [{"_id": "1", "_updated": 3, "_deleted": True}]))

    def test_since_and_limit(self):
        self.assertEqual([entity["_id"] for entity in self.ask("GET", "/entities?since=1&limit=1")[1]], ["2"])
        self.assertEqual(self.ask("GET", "/entities?since=3"), (200, []))

    def test_what_is_no_since_is_refused(self):
        self.assertEqual(self.ask("GET", "/entities?since=yesterday")[0], 400)
        self.assertEqual(self.ask("GET", "/entities?limit=few")[0], 400)
        self.assertEqual(self.ask("GET", "/elsewhere")[0], 404)
        self.assertEqual(self.ask("POST", "/entities", [])[0], 405)

    def test_a_failure_at_once_is_an_error(self):
        self.given = [OSError("no connection")]
        status, said = self.ask("GET", "/entities")
        self.assertEqual((status, said), (500, {"message": "no connection"}))

    def test_a_failure_half_way_cuts_the_answer(self):
        self.given = [ADA, OSError("the connection broke")]
        with self.assertRaises(http.client.IncompleteRead):
            self.ask("GET", "/entities")


if __name__ == "__main__":
    unittest.main()
