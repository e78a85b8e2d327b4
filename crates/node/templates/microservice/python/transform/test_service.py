"""python3 -m unittest"""

import http.client
import unittest

import service
from testing import ServiceCase

ADA = {"_id": "1", "_deleted": False, "name": "Ada Lovelace"}


class Transform(ServiceCase):
    def setUp(self):
        self.start(service.ROUTES)

    def test_each_comes_back_whole_with_its_initials(self):
        self.assertEqual(self.ask("POST", "/transform", [ADA, {"_id": "2"}]), (200, [{**ADA, "initials": "AL"}, {"_id": "2"}]))

    def test_deleted_ones_pass(self):
        gone = {**ADA, "_deleted": True}
        self.assertEqual(self.ask("POST", "/transform", [gone]), (200, [gone]))

    def test_nothing_becomes_nothing(self):
        self.assertEqual(self.ask("POST", "/transform", []), (200, []))

    def test_what_is_no_batch_is_refused(self):
        for wrong in (b'[{"_id": "1"}', b"", b'["1"]', b"{}"):
            self.assertEqual(self.ask("POST", "/transform", wrong)[0], 400, wrong)

    def test_a_batch_that_breaks_off_late_cuts_the_answer(self):
        many = b"[" + b'{"_id": "1"},' * 1000
        with self.assertRaises(http.client.IncompleteRead):
            self.ask("POST", "/transform", many)


if __name__ == "__main__":
    unittest.main()
