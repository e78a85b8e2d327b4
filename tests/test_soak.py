"""The soak's own eyes: what must not be is found."""

import json
import unittest

from soak import Finding, Reader, Soak


class Fake:
    """Answers with what a test says, page after page."""

    def __init__(self, *pages, last=None, generation="g"):
        self.pages, self.last, self.generation = list(pages), last, generation

    def ask(self, method, path):
        page = self.pages.pop(0)
        body = [{"_id": id, "_updated": updated, "_deleted": deleted, "v": v} for id, updated, v, deleted in page]
        last = self.last if self.last is not None else max((row[1] for row in page), default=-1)
        return 200, {"x-dataset-generation": self.generation, "x-dataset-max-updated": str(last)}, json.dumps(body).encode()


def read(*pages, **more):
    node, reader = Fake(*pages, **more), Reader("d")
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
