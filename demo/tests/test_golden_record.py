"""Three systems that are kept alike: what the README of examples/golden-record says, seen with the real node.

Needs the node's path in TAHINI. Without it these are skipped, and fail where CI is set.
"""

import unittest

from support import needs_node

from golden import SYSTEMS, Flow
from test_examples import ProjectCase


@needs_node
class GoldenRecord(ProjectCase):
    project = "golden-record"

    def setUp(self):
        super().setUp()
        flow = Flow(self.node, self.standins)
        self.collect, self.inside, self.round = flow.collect, flow.inside, flow.round
        self.writes, self.written, self.people = flow.writes, flow.written, flow.people

    def settled(self):
        """Two rounds: the first makes what is missing, the second reads it back."""
        self.round()
        self.round()

    def id_in(self, name, email):
        people = self.standins.state(name)["people"].items()
        return next(identity for identity, person in people if person["email"].lower() == email)

    def edit(self, system, email, at=None, **properties):
        moment = {"at": at} if at else {}
        self.standins.control(system, "edit", id=self.id_in(system, email), properties=properties, **moment)

    def assert_alike(self):
        self.assertEqual(self.people("hr"), self.people("support"))
        self.assertEqual(self.people("hr"), self.people("billing"))

    def outcome(self, name, email):
        """What came of the last update of somebody in a system."""
        target = self.id_in(name, email)
        return [row["outcome"] for row in self.live(f"{name}-update").values() if row["target"] == target]

    def test_nobody_is_made_twice_and_what_comes_back_is_no_news(self):
        before = self.writes()
        self.round()
        first = {"hr": {"created": 2}, "support": {"created": 2, "updated": 1}, "billing": {"created": 2}}
        self.assertEqual(self.written(before), first)
        self.assert_alike()
        self.assertEqual(len(self.people("hr")), 5)
        for _ in range(3):
            self.round()
        self.assertEqual(self.written(before), first)
        self.assertEqual(len(self.live("global-person")), 5)
        self.assertEqual([self.live(f"{name}-todo") for name in SYSTEMS], [{}, {}, {}])

    def test_one_edit_is_one_write_to_each_of_the_others(self):
        self.settled()
        for name in SYSTEMS:
            before = self.writes()
            self.edit(name, "cai.moe@example.com", phone=f"+47 {name}")
            self.round()
            others = {other: {"updated": 1} for other in SYSTEMS if other != name}
            self.assertEqual(self.written(before), others)
            self.round()
            self.round()
            self.assertEqual(self.written(before), others)
            self.assert_alike()
            self.assertEqual(self.people("hr")["cai.moe@example.com"]["phone"], f"+47 {name}")

    def test_what_somebody_wrote_in_the_target_is_not_overwritten(self):
        self.settled()
        before = self.writes()
        self.edit("hr", "ada.lund@example.com", phone="+47 1")
        self.edit("support", "ada.lund@example.com", title="Lead")
        self.edit("billing", "ada.lund@example.com", name="Ada Lund Vik")
        # Only HR is read: the others have something that nobody here knows of.
        self.collect("hr")
        self.inside()
        self.assertEqual(self.written(before), {})
        for name in ("support", "billing"):
            self.assertEqual(self.outcome(name, "ada.lund@example.com"), ["waits"])
        self.round()
        self.round()
        ada = self.people("hr")["ada.lund@example.com"]
        self.assertEqual((ada["phone"], ada["title"], ada["name"]), ("+47 1", "Lead", "Ada Lund Vik"))
        self.assert_alike()

    def test_a_change_between_the_look_and_the_write_is_not_overwritten_either(self):
        self.settled()
        for name in ("support", "billing"):
            before = self.writes()
            target = self.id_in(name, "bo.dahl@example.com")
            between = {"id": target, "properties": {"title": f"Lead of {name}"}}
            self.standins.control(name, "settings", edit_before_write=between)
            self.edit("hr", "bo.dahl@example.com", phone=f"+47 before {name}")
            self.round()
            self.assertEqual(self.written(before)[name], {"refused": 1})
            self.assertEqual(self.outcome(name, "bo.dahl@example.com"), ["refused"])
            self.round()
            self.round()
            bo = self.people(name)["bo.dahl@example.com"]
            self.assertEqual((bo["phone"], bo["title"]), (f"+47 before {name}", f"Lead of {name}"))
            self.assert_alike()

    def test_a_refused_update_is_sent_although_the_golden_record_stays_what_it_is(self):
        self.settled()
        golden = self.versions("global-person")
        self.edit("hr", "ada.lund@example.com", at="2027-01-02T00:00:00Z", phone="+47 newer")
        # Changed earlier, and not read yet: the golden record will never show it.
        self.edit("support", "ada.lund@example.com", at="2027-01-01T00:00:00Z", phone="+47 older")
        self.collect("hr")
        self.inside()
        self.assertEqual(self.outcome("support", "ada.lund@example.com"), ["waits"])
        self.assertEqual(self.versions("global-person"), golden + 1)
        self.collect("support")
        self.inside()
        self.assertEqual(self.versions("global-person"), golden + 1)
        self.assertEqual(self.people("support")["ada.lund@example.com"]["phone"], "+47 newer")
        self.round()
        self.assert_alike()

    def test_who_joined_whom_is_told(self):
        self.settled()
        told = self.node.call("GET", "/pipes/global-person/merge-explain?entity_id=support:1")
        self.assertEqual(told["_id"], "hr:1")
        joins = [(join["to"]["_id"], join["rule"], join["value"]) for join in told["joins"]]
        self.assertIn(("support:1", ["eq", "hr.person", "support.person"], "ada.lund@example.com"), joins)
        # Billing got her from here, and the dataset of what was inserted says so.
        self.assertIn("billing-insert", [member["dataset"] for member in told["members"]])
        with self.assertRaisesRegex(Exception, "404"):
            self.node.call("GET", "/pipes/global-person/merge-explain?entity_id=hr:99")
        with self.assertRaisesRegex(Exception, "merge source"):
            self.node.call("GET", "/pipes/hr-share/merge-explain?entity_id=hr:1")

    def test_an_answer_that_is_lost_makes_nobody_twice(self):
        """The answer to a creation is lost: it is asked for again, and answered with the person that it made."""
        self.standins.control("billing", "fault", kind="disconnect", path="/api/people", after=1, count=1)
        self.collect()
        for _ in range(2):
            for name in SYSTEMS:
                self.node.run(f"{name}-enrich")
            self.node.run("global-person")
            for name in SYSTEMS:
                self.node.run(f"{name}-share")
                self.node.run(f"{name}-insert")
        self.round()
        self.round()
        self.assertEqual(self.standins.state("billing")["writes"]["created"], 2)
        self.assert_alike()


if __name__ == "__main__":
    unittest.main()
