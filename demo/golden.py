"""Shows three systems that are kept alike: examples/golden-record, with an edit and a conflict.

    .cache/venv/bin/python demo/golden.py --tahini target/release/tahini

Ends with 0 when everything came out as its README says, else with 1.
"""

import argparse
import sys
import tempfile

from processes import Node, StandIns, Trouble

SYSTEMS = ("hr", "support", "billing")
FIELDS = ("name", "email", "phone", "title")
STAGES = ("enrich", "share", "insert", "todo", "update")
KINDS = ("created", "updated", "unchanged", "refused")


class Flow:
    """The project on a node, run by hand: first what reads, then everything inside until nothing changes."""

    def __init__(self, node, standins):
        self.node, self.standins = node, standins

    def runs(self, *pipes):
        """Runs pipes; how many entities changed."""
        changed = 0
        for pipe in pipes:
            summary = self.node.run(pipe)
            if not summary["success"]:
                raise Trouble(f"{pipe}: {summary['message']}")
            changed += summary["changed"]
        return changed

    def collect(self, *names):
        self.runs(*[f"{name}-collect" for name in names or SYSTEMS])

    def inside(self):
        stages = [[f"{name}-{stage}" for name in SYSTEMS] for stage in STAGES]
        order = [*stages[0], "global-person", *sum(stages[1:], [])]
        for _ in range(6):
            if self.runs(*order) == 0:
                return
        raise Trouble("expected the flow to come to rest, found that it feeds itself")

    def round(self):
        self.collect()
        self.inside()

    def writes(self):
        return {name: self.standins.state(name)["writes"] for name in SYSTEMS}

    def written(self, before):
        """What was written since then, by system; systems without any are left out."""
        now = self.writes()
        told = {name: {kind: now[name][kind] - before[name][kind] for kind in KINDS} for name in SYSTEMS}
        told = {name: {kind: count for kind, count in counts.items() if count} for name, counts in told.items()}
        return {name: counts for name, counts in told.items() if counts}

    def people(self, name):
        """Who is in a system, by e-mail address, without what is the system's own."""
        people = self.standins.state(name)["people"].values()
        return {person["email"].lower(): {field: person[field] for field in FIELDS} for person in people}

    def alike(self):
        return all(self.people(name) == self.people("hr") for name in SYSTEMS)


def play(flow):
    """Each step: what is done, the writes that it makes, and those that were expected."""

    def step(words, expected, act=lambda: None, rounds=1):
        before = flow.writes()
        act()
        for _ in range(rounds):
            flow.round()
        found = flow.written(before)
        print(f"{words}\n    {told(found)}")
        if found != expected:
            raise Trouble(f"expected {told(expected)}")

    def edit(system, **properties):
        flow.standins.control(system, "edit", id="1", properties=properties)

    def conflict():
        flow.standins.control("support", "settings", edit_before_write={"id": "1", "properties": {"title": "Lead"}})
        edit("hr", phone="+47 2")

    step("Nine records of five people; the first round makes what is missing:",
         {"hr": {"created": 2}, "support": {"created": 2, "updated": 1}, "billing": {"created": 2}})
    step("Two more rounds read that back:", {}, rounds=2)
    step("Ada gets another phone number in HR:", {"support": {"updated": 1}, "billing": {"updated": 1}}, lambda: edit("hr", phone="+47 1"))
    step("Two more rounds:", {}, rounds=2)
    step("And another one, while somebody gives her a title in support, between the look and the write:",
         {"support": {"refused": 1}, "billing": {"updated": 1}}, conflict)
    step("The next round has both:", {"hr": {"updated": 1}, "support": {"updated": 1}, "billing": {"updated": 1}})
    step("Two more rounds:", {}, rounds=2)
    ada = flow.people("billing")["ada.lund@example.com"]
    if not flow.alike() or (ada["phone"], ada["title"]) != ("+47 2", "Lead"):
        raise Trouble(f"expected the same people everywhere, found {[flow.people(name) for name in SYSTEMS]}")
    print("The three hold the same.")


def told(writes):
    return "; ".join(f"{name}: {', '.join(f'{count} {kind}' for kind, count in counts.items())}" for name, counts in writes.items()) or "no writes"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tahini", required=True, help="path of the built node")
    options = parser.parse_args()
    standins = StandIns()
    try:
        with tempfile.TemporaryDirectory(prefix="tahini-golden-") as folder:
            node = Node(options.tahini, folder, standins, projects=["golden-record"])
            try:
                play(Flow(node, standins))
            finally:
                node.stop()
    except Trouble as trouble:
        print(f"error: {trouble}", file=sys.stderr)
        return 1
    finally:
        standins.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
