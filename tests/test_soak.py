"""The soak's own eyes: what must not be is found."""

import json
import tempfile
import unittest
from pathlib import Path

from outside import Source, Target
from soak import Finding, Reader, Soak, difference


class Fake:
    """Answers with what a test says, page after page."""

    def __init__(self, *pages, last=None, generation="g"):
        self.pages, self.last, self.generation = list(pages), last, generation

    def ask(self, method, path):
        page = self.pages.pop(0)
        body = [{"_id": id, "_updated": updated, "_deleted": deleted, "v": v} for id, updated, v, deleted in page]
        last = self.last if self.last is not None else max((row[1] for row in page), default=-1)
        return 200, {"x-dataset-generation": self.generation, "x-dataset-max-updated": str(last)}, json.dumps(body).encode()


def read(*pages, stays=lambda id: False, forbidden=(), **more):
    node, reader = Fake(*pages, **more), Reader("d", stays, forbidden)
    for _ in pages:
        reader.step(node)
    return reader


class Eyes(unittest.TestCase):
    def test_a_good_dataset_is_good(self):
        reader = read([("a", 0, 1, False), ("b", 1, 1, False)], [("a", 4, 2, False), ("b", 5, 1, True)], [("b", 9, 2, False)])
        self.assertEqual(reader.values, {"a": (2, False), "b": (2, False)})
        self.assertEqual(reader.at(4), {"a": (4, 2, False), "b": (1, 1, False)})

    def test_what_must_not_be_is_found(self):
        first = [("a", 5, 3, False)]
        for words, pages, more in [
            ("offset 5 after 5", [first, [("b", 5, 1, False)]], {}),
            ("offset 4 after 5", [first, [("b", 4, 1, False)]], {"last": 5}),
            ("a is 2 at 6, and was 3", [first, [("a", 6, 2, False)]], {}),
            ("a is 3 at 6, and was 3", [first, [("a", 6, 3, False)]], {}),
            ("what was durable is gone", [first, []], {"last": 4}),
        ]:
            with self.subTest(words), self.assertRaisesRegex(Finding, words):
                read(*pages, **more)

    def test_where_order_is_not_promised_an_older_value_may_come_for_a_moment(self):
        pages = [("a", 1, 5, False), ("a", 2, 4, False), ("a", 3, 5, False)]
        node, reader = Fake(pages), Reader("d", in_order=False)
        reader.step(node)
        self.assertEqual((reader.values["a"], reader.back), ((5, False), 1))
        with self.assertRaisesRegex(Finding, "a is 5 at 4, and was 5"):
            reader.see({"_id": "a", "_updated": 4, "_deleted": False, "v": 5})

    def test_what_was_deleted_wrongly_or_held_back_is_found(self):
        page = [("a", 1, 1, False), ("b", 2, 2, True)]
        read(page, stays=lambda id: id == "a", forbidden={("a", 2)})
        with self.assertRaisesRegex(Finding, "b is deleted at 2, and never went"):
            read(page, stays=lambda id: True)
        with self.assertRaisesRegex(Finding, "a is seen as 1 at 1, which the circuit breaker held back"):
            read(page, forbidden={("a", 1)})

    def test_the_target_takes_all_of_a_request_or_nothing_and_finds_older_versions(self):
        target, entity = Target(), lambda id, v, **more: {"_id": id, "v": v, **more}
        refused = next(v for v in range(5, 99) if target.refuses("a", v))
        taken = next(v for v in range(refused, 99) if not target.refuses("a", v))
        other = next(f"b{at}" for at in range(99) if not target.refuses(f"b{at}", 1))
        self.assertEqual(target.take([entity(other, 1), entity("a", refused)]), 422)
        self.assertEqual(target.values, {})
        self.assertEqual(target.take([entity("a", taken), entity(other, 1)]), 200)
        self.assertEqual(target.take([entity("a", refused, _deleted=True)]), 200, "a deletion is never refused")
        self.assertEqual(target.values, {other: 1})
        self.assertEqual(target.wrong, [f"the target was given a as {refused} after {taken}"])
        target.refusing = False
        self.assertEqual(target.take([entity("c", refused), entity("a", taken + 11)]), 200)
        self.assertEqual(len(target.wrong), 1)

    def test_a_burst_that_is_taken_back_was_never_there(self):
        source, told = Source(None, ["a", "b"]), {}
        source.change(["a"])
        before, values = source.burst(["a", "b"], told.update)
        self.assertEqual((values, told), ({"a": 2, "b": 3}, {"a": 2, "b": 3}))
        self.assertEqual(source.values(), values)
        source.take_back(before)
        self.assertEqual((source.values(), source.change(["b"])), ({"a": 1}, {"b": 4}))
        self.assertEqual(difference(source.values(), {"a": 1, "c": 2}), {"b": (4, None), "c": (None, 2)})

    def test_another_generation_is_found(self):
        node, reader = Fake([("a", 1, 1, False)]), Reader("d")
        reader.step(node)
        node.pages, node.generation = [[]], "h"
        with self.assertRaisesRegex(Finding, "another generation"):
            reader.step(node)

    def test_a_backup_that_is_no_prefix_is_found(self):
        soak = Soak.__new__(Soak)
        soak.readers = {"d": read([("a", 0, 1, False), ("b", 1, 1, False), ("a", 2, 2, False)])}
        entity = lambda id, updated, v: {"_id": id, "_updated": updated, "_deleted": False, "v": v}
        soak.check_prefix("d", {"a": entity("a", 0, 1), "b": entity("b", 1, 1)})
        soak.check_prefix("d", {"a": entity("a", 2, 2), "b": entity("b", 1, 1)})
        for restored in [
            {"a": entity("a", 2, 2)},
            {"a": entity("a", 2, 9), "b": entity("b", 1, 1)},
            {"a": entity("a", 0, 1), "b": entity("b", 1, 1), "c": entity("c", 2, 1)},
        ]:
            with self.subTest(restored), self.assertRaises(Finding):
                soak.check_prefix("d", restored)

    def test_a_full_sequence_that_is_in_conflict_begins_anew(self):
        class Conflict:
            def post(self, name, entities, **parameters):
                soak.asked.append(parameters["request_id"])
                if len(soak.asked) == 2:
                    soak.over.set()
                return 409, ""

        with tempfile.TemporaryDirectory() as folder:
            soak = Soak("tahini", Path(folder), 1, 1)
        self.addCleanup(soak.outside.end)
        soak.node, soak.asked = Conflict(), []
        soak.full_sequences()
        self.assertEqual((soak.asked, soak.counts["restarts_of_sequences"]), (["1-0", "2-0"], 2))

    def test_an_acknowledged_post_that_is_gone_is_found(self):
        class Node:
            def latest(self, name):
                return {"durable": {"a": 2}, "soon": {}}[name]

        soak = Soak.__new__(Soak)
        soak.node = Node()
        soak.check_acknowledged({"durable": {"a": 2}, "soon": {}})
        with self.assertRaisesRegex(Finding, "acknowledged as 3 and is 2"):
            soak.check_acknowledged({"durable": {"a": 3}, "soon": {}})
        with self.assertRaisesRegex(Finding, "is None"):
            soak.check_acknowledged({"durable": {}, "soon": {"x": 0}})


if __name__ == "__main__":
    unittest.main()
