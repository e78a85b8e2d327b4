"""python3 -m unittest"""

import os
import tempfile
import unittest

import service
from records import Records
from testing import ServiceCase

ADA = {"_id": "1", "_deleted": False, "_updated": 7, "_previous": None, "_ts": 1, "_hash": "0", "name": "Ada æ"}


class Sink(ServiceCase):
    def setUp(self):
        self.start(service.ROUTES)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        service.records = Records(os.path.join(folder.name, "records.ndjson"))

    def written(self):
        return list(service.records.changes())

    def push(self, batch, query="sequence_id=s&is_full=false&request_id=1"):
        return self.ask("POST", f"/entities?{query}", batch)[0]

    def test_a_record_without_what_is_the_nodes(self):
        self.assertEqual(self.push([ADA]), 200)
        self.assertEqual(self.written(), [{"name": "Ada æ", "id": "1", "changed": 1}])

    def test_the_same_batch_twice_is_written_once(self):
        self.assertEqual([self.push([ADA]), self.push([ADA])], [200, 200])
        self.assertEqual(len(self.written()), 1)

    def test_deleted_twice_is_deleted(self):
        gone = {"_id": "1", "_deleted": True}
        self.assertEqual([self.push([ADA]), self.push([gone]), self.push([gone])], [200, 200, 200])
        self.assertEqual(self.written()[1:], [{"id": "1", "deleted": True, "changed": 2}])

    def test_the_empty_batch_at_the_end(self):
        self.assertEqual(self.push([]), 200)
        self.assertEqual(self.push([], "sequence_id=s&is_full=true&request_id=2&previous_request_id=1&is_last=true"), 200)
        self.assertEqual(self.written(), [])

    def test_what_is_no_batch_is_refused(self):
        for wrong in (b'[{"_id": "1"}', b"", b'["1"]', b"{}", b'[{"name": "x"}]', b'[{"_id": "1"}] x', b'[{"_id": "\xff"}]'):
            self.assertEqual(self.push(wrong), 400, wrong)

    def test_entities_of_any_size_and_number(self):
        many = [{"_id": str(number), "text": "x" * number} for number in range(0, 100_000, 997)]
        self.assertEqual(self.push(many), 200)
        self.assertEqual(len(self.written()), len(many))


if __name__ == "__main__":
    unittest.main()
