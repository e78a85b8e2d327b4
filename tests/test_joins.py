"""Joins that stay true, with the real binary: whatever changes in a joined dataset reaches what was made of it, by signals
alone, and although the node is killed again and again.

Needs the environment variable TAHINI: the path of a built node.
"""

import json
import os
import random
import shutil
import tempfile
import time
import unittest
from pathlib import Path

from nodes import Gone, Node, wait

TAHINI = os.environ["TAHINI"]
ORDERS, CUSTOMERS, KILLS, SEED = 300, 40, 8, 11
# Runs start by signals; schedules are far away.
FAR = {"cron_expression": "0 0 1 1 *"}


def pipe(id, source, **more):
    return {"_id": id, "type": "pipe", "source": source, **more}


def joining(id, source, hops, **more):
    rules = {"default": [["copy", "_id"], ["add", "v", ["sorted", "_.", ["hops", hops]]]]}
    source = {"type": "dataset", "dataset": source, "supports_signalling": True}
    return pipe(id, source, transform={"type": "dtl", "rules": rules}, pump=FAR, **more)


PIPES = [
    pipe("customers", {"type": "http_endpoint"}),
    pipe("orders", {"type": "http_endpoint"}),
    joining("named", "orders", {"datasets": ["customers c"], "where": ["eq", "_S.customer", "c.number"], "return": "c.name"}, batch_size=3),
    # A customer's orders, and what became of them: a join that another one feeds.
    joining("counted", "customers", {"datasets": ["orders o", "named n"], "where": [["eq", "_S.number", "o.customer"], ["eq", "o._id", "n._id"]], "return": "n.v"}),
]


class Joins(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="tahini-joins-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def node(self, pipes):
        node = Node(TAHINI, self.folder, pipes)
        self.addCleanup(node.end)
        return node.start()

    def put(self, node, pipe, known, entity):
        """Posts an entity, again where nobody knows whether it came."""
        for _ in range(3):
            try:
                status, text = node.post(pipe, [entity])
            except Gone:
                node.end()
                node.start()
                continue
            self.assertEqual(status, 200, text)
            known.pop(entity["_id"], None)
            if not entity.get("_deleted"):
                known[entity["_id"]] = entity
            return
        raise AssertionError("the node takes nothing")

    def change(self, node, chance, customers, orders):
        if chance.random() < 0.5:
            number = chance.randrange(CUSTOMERS)
            entity = {"_id": f"c{number}", "number": chance.choice([number, number + 1]), "name": f"n{chance.randrange(10**6)}"}
            pipe, known = "customers", customers
        else:
            entity = {"_id": f"o{chance.randrange(ORDERS)}", "customer": chance.sample(range(CUSTOMERS), chance.randrange(3))}
            pipe, known = "orders", orders
        if chance.random() < 0.2:
            entity = {"_id": entity["_id"], "_deleted": True}
        self.put(node, pipe, known, entity)

    def test_what_is_joined_follows_what_changes_whatever_kills_the_node(self):
        chance = random.Random(SEED)
        node = self.node(PIPES)
        customers, orders = {}, {}
        for number in range(CUSTOMERS):
            self.put(node, "customers", customers, {"_id": f"c{number}", "number": number, "name": f"n{number}"})
        for number in range(ORDERS):
            self.put(node, "orders", orders, {"_id": f"o{number}", "customer": number % CUSTOMERS})
        for _ in range(KILLS):
            for _ in range(chance.randrange(1, 30)):
                self.change(node, chance, customers, orders)
            time.sleep(chance.random() / 10)
            node.kill()
            node.start()

        def of(order):
            wanted = order["customer"] if isinstance(order["customer"], list) else [order["customer"]]
            return sorted(c["name"] for c in customers.values() if c["number"] in wanted)

        named = {id: of(order) for id, order in orders.items()}
        wait("every order with the names of its customers", lambda: node.latest("named") == named)
        counted = {
            id: sorted([named[o["_id"]] for o in orders.values() if c["number"] in (o["customer"] if isinstance(o["customer"], list) else [o["customer"]])], key=json.dumps)
            for id, c in customers.items()
        }
        def found():
            return {id: sorted(v, key=json.dumps) for id, v in node.latest("counted").items()}
        flat = lambda lists: {id: sorted(name for one in v for name in (one if isinstance(one, list) else [one])) for id, v in lists.items()}
        wait("every customer with what became of its orders", lambda: flat(found()) == flat(counted))
        # Nothing was read from its start for that.
        wait("every change was followed", lambda: node.json("/api/pipes/named/pump")["runtime"]["queues"]["dependencies"] == {"customers": 0})

    def test_a_pipe_says_what_it_waits_for(self):
        pipes = [
            pipe("late", {"type": "embedded", "entities": [{"_id": "1", "k": 1, "name": "one"}]}, pump={"mode": "manual"}),
            pipe("things", {"type": "http_endpoint"}),
            joining("p", "things", {"datasets": ["late l"], "where": ["eq", "_S.k", "l.k"], "return": "l.name"}),
        ]
        node = self.node(pipes)
        self.assertEqual(node.post("things", [{"_id": "a", "k": 1}])[0], 200)
        def runtime():
            return node.json("/api/pipes/p/pump")["runtime"]
        wait("the reason", lambda: 'waits for dataset "late"' in (runtime()["last-message"] or ""))
        self.assertIn('waits for dataset "late"', node.said().replace("\\", ""))
        node.run("late")
        node.run("p")
        self.assertEqual(node.latest("p"), {"a": ["one"]})


if __name__ == "__main__":
    unittest.main()
