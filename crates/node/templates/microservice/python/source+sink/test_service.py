"""python3 -m unittest"""

import os
import tempfile
import unittest

import service
from records import Records
from testing import ServiceCase

ADA = {"_id": "1", "_deleted": False, "_updated": 7, "_previous": None, "_ts": 1, "_hash": "0", "name": "Ada"}


class SourceAndSink(ServiceCase):
    def setUp(self):
        self.start(service.ROUTES)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        service.records = Records(os.path.join(folder.name, "records.ndjson"))

    def push(self, batch):
        return self.ask("POST", "/entities?sequence_id=s&is_full=false&request_id=1", batch)[0]

    def pull(self, query=""):
        return self.ask("GET", f"/entities{query}")

    def test_what_is_written_comes_back_as_a_change(self):
        self.assertEqual(self.pull(), (200, []))
        self.assertEqual(self.push([ADA]), 200)
        self.assertEqual(self.pull(), (200, [{"_id": "1", "_updated": 1, "name": "Ada", "id": "1", "changed": 1}]))

    def test_the_same_again_is_no_change(self):
        self.assertEqual([self.push([ADA]), self.push([ADA]), self.push([])], [200, 200, 200])
        self.assertEqual(self.pull("?since=1"), (200, []))

    def test_deleted_twice_is_one_change(self):
        gone = {"_id": "1", "_deleted": True}
        self.assertEqual([self.push([ADA]), self.push([gone]), self.push([gone])], [200, 200, 200])
        self.assertEqual(self.pull("?since=1"), (200, [{"_id": "1", "_updated": 2, "_deleted": True}]))

    def test_one_that_comes_again_after_its_deletion(self):
        for batch in ([ADA], [{"_id": "1", "_deleted": True}], [ADA]):
            self.assertEqual(self.push(batch), 200)
        self.assertEqual([entity.get("_deleted", False) for entity in self.pull()[1]], [False, True, False])

    def test_a_change_that_was_not_collected_is_not_overwritten(self):
        self.push([ADA])
        wanted = {"_id": "1", "name": "Ada L."}
        self.assertEqual(self.ask("POST", "/unchanged", [{**wanted, "expected": 1}]), (200, [wanted]))
        self.push([{**ADA, "name": "Ada K."}])
        status, said = self.ask("POST", "/unchanged", [{**wanted, "expected": 1}])
        self.assertEqual((status, said["message"][:26]), (400, "1: expected change 1 in th"))
        self.assertEqual(self.ask("POST", "/unchanged", [{**wanted, "expected": 2}])[0], 200)
        self.assertEqual(self.ask("POST", "/unchanged", [{"_id": "2", "expected": 0}]), (200, [{"_id": "2"}]))

    def test_since_and_limit(self):
        self.push([{"_id": str(number)} for number in range(5)])
        self.assertEqual([entity["_id"] for entity in self.pull("?since=2&limit=2")[1]], ["2", "3"])
        self.assertEqual(self.pull("?since=now")[0], 400)

    def test_what_is_no_batch_is_refused(self):
        for wrong in (b'[{"_id": "1"}', b"", b'["1"]', b"{}", b'[{"name": "x"}]'):
            self.assertEqual(self.push(wrong), 400, wrong)


if __name__ == "__main__":
    unittest.main()
