"""What the examples' READMEs say they show, seen with the real node.

Needs the node's path in TAHINI. Without it these are skipped, and fail where CI is set.
"""

import json
import os
import tempfile
import time
import unittest

from support import ROOT, needs_node

from processes import Node, StandIns, request

LATER = "2026-01-02T03:04:05.678Z"


def config_of(project, pipe):
    """A pipe's config as the project has it."""
    return json.loads((ROOT / "examples" / project / "pipes" / f"{pipe}.conf.json").read_text("utf-8"))


@needs_node
class ProjectCase(unittest.TestCase):
    """A node with one project and fresh stand-ins."""

    project = None

    def setUp(self):
        self.standins = StandIns()
        self.addCleanup(self.standins.stop)
        folder = tempfile.TemporaryDirectory(prefix="tahini-examples-")
        self.addCleanup(folder.cleanup)
        self.node = Node(os.environ["TAHINI"], folder.name, self.standins, projects=[self.project])
        self.addCleanup(self.node.stop)

    def numbers(self, summary):
        """Kind, read, changed, deleted and failed of a run that ended well."""
        self.assertTrue(summary["success"], summary["message"])
        return tuple(summary[name] for name in ("sync_type", "entities_read", "changed", "deleted", "failed"))

    def live(self, dataset):
        """The entities of a dataset that are not deleted, by id."""
        return {row["_id"]: row for row in self.node.entities(dataset, history="false", deleted="false")}

    def versions(self, dataset):
        return len(self.node.entities(dataset, history="true", deleted="true"))

    def replace(self, pipe, config):
        self.node.call("PUT", f"/pipes/{pipe}/config", body=config)


class HubSpot(ProjectCase):
    project, pipe = "hubspot", "hubspot-contacts-collect"
    first_offset = "2024-04-03T13:30:01.553Z"

    def edit(self, identity, **properties):
        self.standins.control("hubspot", "edit", id=identity, properties=properties, at=LATER)

    def test_all_then_none_then_the_edited_one(self):
        first = self.node.run(self.pipe)
        self.assertEqual(self.numbers(first), ("full", 250, 250, 0, 0))
        self.assertEqual(first["pipe_offset"], self.first_offset)
        self.assertEqual(self.numbers(self.node.run(self.pipe)), ("incremental", 0, 0, 0, 0))
        self.edit("5051", city="Hamar")
        third = self.node.run(self.pipe)
        self.assertEqual(self.numbers(third), ("incremental", 1, 1, 0, 0))
        self.assertEqual(third["pipe_offset"], LATER)
        self.assertEqual(self.live(self.pipe)["5051"]["properties"]["city"], "Hamar")
        self.assertEqual(self.versions(self.pipe), 251)

    def test_the_execution_log_tells_the_same(self):
        self.node.run(self.pipe)
        self.node.run(self.pipe)
        self.edit("5051", city="Hamar")
        self.node.run(self.pipe)
        log = self.node.entities(f"system:pump_execution:{self.pipe}", history="true")
        done = [entry for entry in log if entry["event_type"] == "pump-completed"]
        told = [(entry["sync_type"], entry["processed_last_run"], entry["pipe_offset"]) for entry in done]
        # The run in between changed nothing and is not logged.
        self.assertEqual(told, [("full", 250, self.first_offset), ("incremental", 1, LATER)])

    def test_two_changes_in_one_millisecond_with_a_run_between_both_arrive(self):
        self.node.run(self.pipe)
        self.edit("201", city="Hamar")
        self.node.run(self.pipe)
        self.edit("301", city="Hamar")
        self.node.run(self.pipe)
        contacts = self.live(self.pipe)
        self.assertEqual([contacts[identity]["properties"]["city"] for identity in ("201", "301")], ["Hamar", "Hamar"])

    def test_a_reset_reads_all_again_and_writes_no_version(self):
        self.node.run(self.pipe)
        self.node.pump(self.pipe, "update-last-seen", **{"last-seen": ""})
        self.assertEqual(self.numbers(self.node.run(self.pipe)), ("full", 250, 0, 0, 0))
        self.assertEqual(self.versions(self.pipe), 250)

    def test_a_contact_deleted_at_the_source_disappears_at_the_rescan(self):
        self.node.run(self.pipe)
        self.standins.control("hubspot", "delete", id="5051")
        self.assertEqual(self.numbers(self.node.run(self.pipe))[2:], (0, 0, 0))
        self.assertIn("5051", self.live(self.pipe))
        rescan = self.node.run(self.pipe, "start-rescan")
        self.assertEqual(self.numbers(rescan)[1:], (249, 1, 1, 0))
        self.assertEqual(len(self.live(self.pipe)), 249)
        self.assertNotIn("5051", self.live(self.pipe))

    def test_a_truncated_rescan_fails_deletes_nothing_and_leaves_the_offset(self):
        self.node.run(self.pipe)
        for fault in ("truncate", "truncate-chunk", "truncate-json"):
            with self.subTest(fault):
                self.standins.control("hubspot", "fault", kind=fault, after=1, count=1000)
                failed = self.node.run(self.pipe, "start-rescan")
                self.standins.control("hubspot", "clear-faults")
                self.assertFalse(failed["success"])
                self.assertTrue(failed["message"])
                self.assertEqual(len(self.live(self.pipe)), 250)
        self.edit("5051", city="Hamar")
        self.node.run(self.pipe)
        self.assertEqual(self.live(self.pipe)["5051"]["properties"]["city"], "Hamar")

    def test_what_is_published(self):
        self.node.run(self.pipe)
        published = self.node.call("GET", "/publishers/hubspot-oslo-customers/entities")
        self.assertEqual(len(published), 9)
        self.assertEqual({entity["city"] for entity in published}, {"Oslo"})


class GitHub(ProjectCase):
    project, pipe = "github", "github-repos-collect"

    def test_all_then_only_the_updated_one(self):
        self.assertEqual(self.numbers(self.node.run(self.pipe)), ("full", 130, 130, 0, 0))
        identity = sorted(self.live(self.pipe))[50]
        self.assertEqual(self.live(self.pipe)[identity]["id"], int(identity))
        self.assertEqual(self.numbers(self.node.run(self.pipe)), ("incremental", 0, 0, 0, 0))
        self.standins.control(
            "github", "edit", id=identity, properties={"stargazers_count": 777}, at="2026-01-02T03:04:05Z"
        )
        third = self.node.run(self.pipe)
        self.assertEqual(self.numbers(third), ("incremental", 1, 1, 0, 0))
        self.assertEqual(third["pipe_offset"], "2026-01-02T03:04:05Z")
        self.assertEqual(self.live(self.pipe)[identity]["stargazers_count"], 777)

    def test_the_secret_is_not_shown_anywhere(self):
        self.node.run(self.pipe)
        token = json.loads((ROOT / "examples/github/secrets.json").read_text("utf-8"))["github-access-token"]
        for path in ("/systems/github", "/systems/github/status", "/config", "/secrets"):
            self.assertNotIn(token, json.dumps(self.node.call("GET", path)), path)
        self.assertNotIn(token, self.node.last_lines(100_000))


class WriteBack(ProjectCase):
    project, pipe, poison = "write-back", "people-to-crm", "person-137"
    letters = "people-to-crm-dead-letters"

    def batches(self):
        return self.node.call("GET", "/systems/crm/proxy/batches")

    def push(self):
        self.node.run("people")
        return self.node.run(self.pipe)

    def dead(self):
        datasets = {dataset["_id"] for dataset in self.node.call("GET", "/datasets")}
        return sorted(self.live(self.letters)) if self.letters in datasets else []

    def edited(self, change):
        """The pipe `people` with its entities changed."""
        config = config_of("write-back", "people")
        config["source"]["entities"] = change(config["source"]["entities"])
        return config

    def mended(self, people):
        """The people with a proper address for the one that the CRM refuses."""
        return [{**one, "email": "mended@example.com"} if one["_id"] == self.poison else one for one in people]

    def test_100_and_50_and_0_and_the_refused_batch_one_by_one(self):
        self.assertEqual(self.numbers(self.push()), ("full", 150, 149, 0, 1))
        batches = self.batches()
        self.assertEqual([batch["size"] for batch in batches], [100, 50, *[1] * 50, 0])
        self.assertEqual({batch["is_full"] for batch in batches}, {"true"})
        self.assertEqual([at for at, batch in enumerate(batches) if "is_first" in batch], [0])
        # One person was set aside: a sequence that said it was whole would make a receiver delete that one.
        self.assertEqual([at for at, batch in enumerate(batches) if "is_last" in batch], [])
        state = self.standins.state("crm")
        self.assertEqual((state["records"], state["writes"]["created"], state["refused"]), (149, 149, {self.poison: 2}))

    def test_without_the_poison_it_is_100_and_50_and_0(self):
        self.replace("people", self.edited(self.mended))
        self.assertEqual(self.numbers(self.push()), ("full", 150, 150, 0, 0))
        self.assertEqual([batch["size"] for batch in self.batches()], [100, 50, 0])

    def test_the_refused_one_is_tried_twice_more_alone_and_is_then_a_dead_letter(self):
        self.push()
        for attempt in (1, 2):
            self.assertEqual(self.dead(), [])
            seen = len(self.batches())
            self.assertEqual(self.numbers(self.push())[1:], (0, 0, 0, 1))
            self.assertEqual([batch["size"] for batch in self.batches()[seen:] if batch["size"]], [1])
            self.assertEqual(self.standins.state("crm")["refused"], {self.poison: 2 + attempt})
        self.assertEqual(self.dead(), [self.poison])
        self.assertEqual(self.live(self.letters)[self.poison]["email"].count("@"), 0)
        # Given up: it is not tried again.
        self.assertEqual(self.numbers(self.push())[4], 0)
        self.assertEqual(self.standins.state("crm")["refused"], {self.poison: 4})

    def test_a_corrected_version_gets_through(self):
        self.push()
        self.replace("people", self.edited(self.mended))
        self.push()
        self.assertEqual(self.standins.state("crm")["records"], 150)
        self.assertEqual(self.numbers(self.push())[4], 0)
        self.assertEqual(self.dead(), [])
        log = self.node.entities(f"system:pump_execution:{self.pipe}", history="false")
        error = next(entry for entry in log if entry["_id"] == f"write-error:{self.poison}")
        self.assertIs(error["resolved"], True)

    def test_whoever_is_gone_is_deleted_in_the_target(self):
        self.push()
        seen = len(self.batches())
        self.replace("people", self.edited(lambda people: people[3:]))
        people = self.node.run("people")
        self.assertEqual(self.numbers(people), ("full", 147, 3, 3, 0))
        self.assertEqual(self.numbers(self.node.run(self.pipe))[:2], ("incremental", 3))
        state = self.standins.state("crm")
        self.assertEqual((state["records"], state["writes"]["deleted"], state["writes"]["missing"]), (146, 3, 0))
        pushed = [batch for batch in self.batches()[seen:] if batch["deleted"]]
        self.assertEqual([(batch["size"], batch["deleted"], batch["is_full"]) for batch in pushed], [(3, 3, "false")])


class Orders(ProjectCase):
    project, pipe = "orders", "orders-collect"

    def test_the_list_in_a_property_and_an_order_that_is_gone(self):
        self.assertEqual(self.numbers(self.node.run(self.pipe)), ("full", 3, 3, 0, 0))
        self.assertEqual(self.live(self.pipe)["1"]["Orders"], "Thinkpad")
        self.standins.control("orders", "edit", id="1", properties={"TotalSum": 11000})
        self.standins.control("orders", "delete", id="3")
        self.assertEqual(self.numbers(self.node.run(self.pipe)), ("full", 2, 2, 1, 0))
        published = self.node.call("GET", "/publishers/orders-large/entities")
        self.assertEqual([row["_id"] for row in published if not row["_deleted"]], ["2", "1"])

    def test_a_broken_answer_deletes_nothing(self):
        self.node.run(self.pipe)
        self.standins.control("orders", "fault", kind="truncate", count=1000)
        failed = self.node.run(self.pipe)
        self.assertFalse(failed["success"])
        self.assertIn("/api/orders", failed["message"])
        self.assertEqual(len(self.live(self.pipe)), 3)


class SalesCrm(ProjectCase):
    project = "crm"
    shared = ("sales-contact-all", "sales-contact-event2", "sales-contact-collect", "staff", "sales-contact-transform", "sales-contact-share")

    def round(self):
        """One run of every pipe; the summaries by pipe."""
        return {pipe: self.node.run(pipe) for pipe in self.shared}

    def done(self):
        """What was done last with each entity that was shared."""
        return {identity: row["$last_operation"] for identity, row in self.live("sales-contact-share").items()}

    def state(self):
        return self.standins.state("sales")

    def test_what_is_collected_is_compared_and_shared(self):
        first = self.round()
        self.assertEqual(self.numbers(first["sales-contact-all"]), ("full", 60, 60, 0, 0))
        self.assertEqual(
            self.done(),
            {
                "sales-contact:1003": "update",
                "staff:2": "insert",
                "sales-contact:1005": "discard-entity-not-changed",
                "sales-contact:1006": "discard-entity-not-changed",
            },
        )
        self.assertEqual(self.state()["writes"], {"created": 1, "updated": 1, "deleted": 0})
        self.assertEqual(self.state()["contacts"]["1003"]["city"], "Drammen")
        self.round()
        collected = self.live("sales-contact-collect")
        self.assertEqual(collected["1061"]["$origin"], "staff:2")
        # The hub meets its own contact again, and nothing is written twice.
        self.round()
        self.round()
        self.assertEqual(self.state()["writes"], {"created": 1, "updated": 1, "deleted": 0})
        self.assertEqual(self.done()["sales-contact:1061"], "discard-entity-not-changed")
        self.assertGreater(self.state()["tokens"], 1)
        self.assertIn("429", self.state()["requests"]["by_status"])

    def test_who_leaves_the_staff_is_deleted_in_the_crm(self):
        self.round()
        config = config_of("crm", "staff")
        config["source"]["entities"] = [one for one in config["source"]["entities"] if one["_id"] != "3"]
        self.replace("staff", config)
        self.round()
        self.assertEqual(self.done()["sales-contact:1005"], "delete")
        self.assertEqual(self.state()["writes"]["deleted"], 1)
        self.assertNotIn("1005", self.state()["contacts"])
        self.round()
        self.assertNotIn("1005", self.live("sales-contact-collect"))

    def test_somebody_elses_change_is_not_written_over(self):
        for pipe in self.shared[:-1]:
            self.node.run(pipe)
        self.standins.control("sales", "edit", id="1003", properties={"city": "Bodø"})
        self.node.run("sales-contact-share")
        self.assertEqual(self.done()["sales-contact:1003"], "discard-modified-in-system")
        self.assertEqual(self.state()["contacts"]["1003"]["city"], "Bodø")
        # Once the change is collected, the hub decides anew.
        self.round()
        self.assertEqual(self.state()["contacts"]["1003"]["city"], "Drammen")

    def test_a_change_is_told_by_a_signed_webhook(self):
        self.node.run("sales-contact-registerwebhook")
        self.node.run("sales-contact-registerwebhook")
        webhooks = self.state()["webhooks"]
        self.assertEqual([webhook["topic"] for webhook in webhooks.values()], ["contact/update", "contact/delete"])
        self.round()
        self.standins.control("sales", "edit", id="1007", properties={"city": "Tromsø"})
        self.assertEqual(self.told(1), [200])
        self.node.run("sales-contact-event2")
        self.node.run("sales-contact-collect")
        self.assertEqual(self.live("sales-contact-collect")["1007"]["city"], "Tromsø")
        self.standins.control("sales", "delete", id="1008")
        self.assertEqual(self.told(2), [200, 200])
        self.node.run("sales-contact-event2")
        self.node.run("sales-contact-collect")
        self.assertNotIn("1008", self.live("sales-contact-collect"))

    def test_an_unsigned_event_is_refused(self):
        status, answer = request("POST", f"{self.node.url}/api/receivers/sales-contact-event/entities", body=[{"id": 1007}])
        self.assertEqual(status, 403)
        self.assertIn("can judge", answer["detail"])

    def told(self, count):
        """The statuses of the events that were posted, once there are so many."""
        for _ in range(500):
            told = self.state()["told"]
            if len(told) >= count:
                return [one["status"] for one in told]
            time.sleep(0.02)
        raise AssertionError(f"expected {count} events, found {told}")

    def setUp(self):
        super().setUp()
        # The node is not at its usual port: the CRM has to know.
        variables = self.node.call("GET", "/env")
        self.node.call("PUT", "/env", body={**variables, "service_url": f"{self.node.url}/api"})


class Enrich(ProjectCase):
    project, pipe = "enrich", "customers-with-place"

    def lookups(self):
        return [request["path"][-4:] for request in self.standins.state("postcode")["requests"]["latest"]]

    def test_each_customer_gets_its_place_and_only_a_moved_one_is_looked_up_again(self):
        self.node.run("customers")
        self.assertEqual(self.numbers(self.node.run(self.pipe)), ("full", 12, 12, 0, 0))
        # Batches of five: 0150 twice within the first, which asks once.
        self.assertEqual(
            self.lookups(), ["0150", "5003", "7010", "9008", "4611", "4006", "0000", "6003", "8006", "9900"]
        )
        self.assertEqual(self.live(self.pipe)["c-12"]["municipality"], "Sør-Varanger")
        self.assertNotIn("town", self.live(self.pipe)["c-08"])

        config = config_of("enrich", "customers")
        config["source"]["entities"][1]["postal_code"] = "3770"
        self.replace("customers", config)
        self.node.run("customers")
        self.assertEqual(self.numbers(self.node.run(self.pipe)), ("incremental", 1, 1, 0, 0))
        self.assertEqual(self.lookups()[10:], ["3770"])
        self.assertEqual(self.live(self.pipe)["c-02"]["town"], "Kragerø")

    def test_a_failing_look_up_fails_the_run_and_the_next_one_goes_on(self):
        self.node.run("customers")
        self.standins.control("postcode", "fault", kind="status", status=500, after=6, count=1000)
        failed = self.node.run(self.pipe)
        self.assertFalse(failed["success"])
        self.assertIn("500", failed["message"])
        self.standins.control("postcode", "clear-faults")
        self.assertTrue(self.node.run(self.pipe)["success"])
        self.assertEqual(len(self.live(self.pipe)), 12)


if __name__ == "__main__":
    unittest.main()
