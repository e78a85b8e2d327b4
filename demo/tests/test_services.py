"""The examples' services, asked and pushed to as the node does it."""

import http.client
import json
import unittest

from support import ROOT, Microservice, Running, ask

import crm
import github
import hubspot
import postcode

FIELDS = ["city", "email", "firstname"]


class ServiceCase(unittest.TestCase):
    """A stand-in and the service in front of it, both on free ports."""

    kind, example = None, None

    def environment(self, url):
        raise NotImplementedError

    def setUp(self):
        self.api = Running(self.kind)
        self.addCleanup(self.api.stop)
        self.start(**self.environment(self.api.url))

    def start(self, **environment):
        self.service = Microservice(self.example, **environment)
        self.addCleanup(self.service.stop)

    def get(self, path, **query):
        return ask("GET", self.service.url + path, **query)


class PullCase(ServiceCase):
    """What every service that is pulled from must do."""

    path, edited, dates = None, None, None

    def pull(self, since=None):
        """The entities, and the highest `_updated`, as the node would remember it."""
        reply = self.get(self.path, **({} if since is None else {"since": since}))
        self.assertEqual(reply.status, 200, reply.text)
        entities = reply.json
        return entities, max((entity["_updated"] for entity in entities), default=since)


class SharedByPulls:
    def test_all_then_only_the_last_then_the_edited_one_too(self):
        entities, offset = self.pull()
        self.assertEqual(len(entities), self.total)
        self.assertEqual(len({entity["id"] for entity in entities}), self.total)
        last, offset_again = self.pull(offset)
        self.assertEqual(([entity["_updated"] for entity in last], offset_again), ([offset], offset))
        self.api.control("edit", id=self.edited, properties=self.edit, at=self.later)
        changed, offset_then = self.pull(offset)
        self.assertEqual(offset_then, self.later)
        self.assertEqual(
            sorted(str(entity["id"]) for entity in changed), sorted([str(last[0]["id"]), self.edited])
        )

    def test_two_changes_in_one_moment_with_a_run_between_both_arrive(self):
        _, offset = self.pull()
        one, other = self.pair
        self.api.control("edit", id=one, properties=self.edit, at=self.later)
        changed, offset = self.pull(offset)
        self.assertIn(one, [str(entity["id"]) for entity in changed])
        self.api.control("edit", id=other, properties=self.edit, at=self.later)
        changed, _ = self.pull(offset)
        self.assertIn(other, [str(entity["id"]) for entity in changed])

    def test_too_many_requests_are_waited_for(self):
        self.api.control("fault", kind="status", count=2, retry_after=0.01)
        entities, _ = self.pull()
        self.assertEqual(len(entities), self.total)
        self.assertEqual(self.api.state()["requests"]["by_status"]["429"], 2)

    def test_too_many_requests_for_ever_are_an_error(self):
        self.api.control("fault", kind="status", count=100, retry_after=0)
        reply = self.get(self.path)
        self.assertEqual(reply.status, 502)
        self.assertIn("429", reply.json["message"])

    def test_an_api_that_is_down_from_the_start_is_an_error_answer(self):
        for fault in ("status", "truncate", "truncate-chunk", "truncate-json", "disconnect"):
            self.api.control("clear-faults")
            self.api.control("fault", kind=fault, status=500, count=100)
            reply = self.get(self.path)
            self.assertEqual(reply.status, 502, fault)
            self.assertTrue(reply.json["message"], fault)

    def test_an_api_that_breaks_on_a_later_page_cuts_the_answer(self):
        for fault in ("status", "truncate", "truncate-chunk", "truncate-json", "disconnect"):
            self.api.control("clear-faults")
            self.api.control("fault", kind=fault, status=500, after=1, count=100)
            with self.assertRaises(http.client.IncompleteRead, msg=fault) as caught:
                self.get(self.path)
            with self.assertRaises(json.JSONDecodeError, msg="the array must not be closed"):
                json.loads(caught.exception.partial)

    def test_a_since_that_is_no_instant_is_refused(self):
        reply = self.get(self.path, since="0")
        self.assertEqual(reply.status, 400)
        self.assertIn("since", reply.json["message"])
        self.assertEqual(self.api.state()["requests"]["total"], 0)

    def test_nothing_since_then_is_an_empty_array(self):
        self.assertEqual(self.pull("2099-01-01T00:00:00.000Z")[0], [])


class HubSpot(SharedByPulls, PullCase):
    kind, example, path, total = hubspot.HubSpot, "hubspot", "/get_contacts", 250
    edited, edit, later, pair = "5051", {"city": "Hamar"}, "2026-01-02T03:04:05.678Z", ("201", "301")

    def environment(self, url):
        return {
            "api-key": hubspot.TOKEN,
            "base-url": f"{url}/crm/v3",
            "since-field": "lastmodifieddate",
            "since-operator": "GTE",
            "properties": json.dumps(FIELDS),
        }

    def test_a_contact_is_what_the_api_said_plus_updated(self):
        entity = self.pull()[0][0]
        listed = ask(
            "GET", self.api.url + hubspot.LIST_PATH, headers={"Authorization": f"Bearer {hubspot.TOKEN}"},
            limit=1, properties=",".join(FIELDS),
        ).json["results"][0]
        self.assertEqual(entity, {**listed, "_updated": listed["properties"]["lastmodifieddate"]})

    def test_more_contacts_of_one_millisecond_than_a_page_holds_all_arrive_once(self):
        entities, _ = self.pull("2024-03-01T12:00:00.250Z")
        stamps = [contact["lastmodifieddate"] for contact in hubspot.contacts().values()]
        self.assertEqual(len(entities), sum(stamp >= "2024-03-01T12:00:00.250Z" for stamp in stamps))
        self.assertEqual(len({entity["id"] for entity in entities}), len(entities))

    def test_more_results_than_one_search_gives_all_arrive_once(self):
        self.api.control("settings", search_window=220)
        entities, _ = self.pull("2020-01-01T00:00:00.000Z")
        self.assertEqual(len(entities), 250)
        self.assertEqual(len({entity["id"] for entity in entities}), 250)

    def test_with_gt_the_second_change_of_a_millisecond_is_lost(self):
        """Why the example's since-operator is GTE."""
        self.start(**self.environment(self.api.url) | {"since-operator": "GT"})
        one, other = self.pair
        self.api.control("edit", id=one, properties=self.edit, at=self.later)
        _, offset = self.pull()
        self.api.control("edit", id=other, properties=self.edit, at=self.later)
        self.assertEqual(self.pull(offset)[0], [])

    def test_a_wrong_token_is_an_error_answer(self):
        self.start(**self.environment(self.api.url) | {"api-key": "wrong"})
        reply = self.get(self.path)
        self.assertEqual(reply.status, 502)
        self.assertIn("401", reply.json["message"])
        self.assertNotIn("wrong", reply.text)


class GitHub(SharedByPulls, PullCase):
    kind, example, path, total = github.GitHub, "github", "/repos", 130
    later = "2026-01-02T03:04:05Z"
    pair = tuple(str(identity) for identity in list(github.repositories())[:2])
    edited, edit = str(list(github.repositories())[40]), {"stargazers_count": 999}

    def environment(self, url):
        return {"access_token": github.TOKEN, "base_url": url}

    def test_a_repository_keeps_its_integer_id(self):
        entities, _ = self.pull()
        self.assertEqual({entity["id"] for entity in entities}, set(github.repositories()))

    def test_a_limit_told_by_403_is_waited_for_and_a_plain_403_is_not(self):
        self.api.control("fault", kind="status", status=403, retry_after=0.01)
        self.assertEqual(len(self.pull()[0]), 130)
        self.api.control("fault", kind="status", status=403)
        self.assertEqual(self.get(self.path).status, 502)


class WriteBack(ServiceCase):
    kind, example = crm.Crm, "write-back"
    poison = "person-137"

    def environment(self, url):
        return {"token": crm.TOKEN, "base_url": f"{url}/api"}

    def people(self):
        pipe = json.loads((ROOT / "examples/write-back/pipes/people.conf.json").read_text("utf-8"))
        stamped = {"_deleted": False, "_hash": "0" * 32, "_previous": None, "_ts": 1}
        return [{**person, "_updated": number, **stamped} for number, person in enumerate(pipe["source"]["entities"])]

    def push(self, batch, **parameters):
        return ask("POST", self.service.url + "/people", batch, **parameters)

    def full_push(self, people):
        """As the node pushes in full: 100 at a time, then an empty batch; a refused batch one by one."""
        chain = iter(range(1, 1000))
        parameters = {"sequence_id": "s1", "is_full": "true", "is_first": "true", "request_id": next(chain)}
        failed = []
        for start in range(0, len(people) + 1, 100):
            batch = people[start : start + 100]
            reply = self.push(batch, **parameters)
            singles = [] if reply.status == 200 else batch
            for person in singles:
                self.step(parameters, chain)
                if self.push([person], **parameters).status != 200:
                    failed.append(person["_id"])
            self.step(parameters, chain)
        self.assertEqual(self.push([], **parameters, is_last="true").status, 200)
        return failed

    @staticmethod
    def step(parameters, chain):
        parameters["previous_request_id"] = parameters["request_id"]
        parameters["request_id"] = next(chain)
        parameters.pop("is_first", None)

    def test_the_poison_fails_alone_and_the_others_arrive(self):
        people = self.people()
        self.assertEqual(len(people), 150)
        self.assertEqual(self.full_push(people), [self.poison])
        state = self.api.state()
        self.assertEqual((state["records"], state["writes"]["created"]), (149, 149))
        self.assertEqual(state["refused"], {self.poison: 2})
        sizes = [batch["size"] for batch in self.get("/batches").json]
        self.assertEqual(sizes, [100, 50, *[1] * 50, 0])

    def test_a_refused_batch_is_an_error_that_names_the_entity(self):
        reply = self.push(self.people()[100:])
        self.assertEqual(reply.status, 500)
        self.assertIn(self.poison, reply.json["message"])
        self.assertIn("422", reply.json["message"])

    def test_what_the_node_adds_is_not_sent_on(self):
        self.assertEqual(self.push(self.people()[:1]).json, {})
        stored = ask("GET", self.api.url + "/api/people", headers={"Authorization": f"Bearer {crm.TOKEN}"}).json
        self.assertEqual(sorted(stored[0]), ["department", "email", "id", "name"])

    def test_deleted_people_are_deleted_and_twice_is_no_error(self):
        people = self.people()[:3]
        self.push(people)
        gone = {"_id": people[0]["_id"], "_deleted": True, "name": "x", "email": "x"}
        for _ in range(2):
            self.assertEqual(self.push([gone]).status, 200)
        state = self.api.state()
        self.assertEqual((state["records"], state["writes"]["deleted"], state["writes"]["missing"]), (2, 1, 1))

    def test_a_single_person_and_an_empty_batch_are_taken(self):
        self.assertEqual(self.push(self.people()[0]).status, 200)
        self.assertEqual(self.push([]).json, {})
        self.assertEqual(self.api.state()["records"], 1)

    def test_an_id_with_a_slash_stays_one_id(self):
        person = {**self.people()[0], "_id": "../people/a b"}
        self.push(person)
        self.assertEqual(self.api.state()["requests"]["latest"][0]["path"], "/api/people/..%2Fpeople%2Fa%20b")

    def test_what_is_no_entity_is_refused(self):
        self.assertEqual(self.push(["a"]).status, 400)
        self.assertEqual(self.push([{"name": "Ada", "email": "ada@example.com"}]).status, 500)
        self.assertEqual(self.api.state()["requests"]["total"], 0)

    def test_too_many_requests_are_waited_for(self):
        self.api.control("fault", kind="status", count=2, retry_after=0.01)
        self.assertEqual(self.push(self.people()[:5]).status, 200)
        self.assertEqual(self.api.state()["records"], 5)


class Enrich(ServiceCase):
    kind, example = postcode.Postcode, "enrich"

    def environment(self, url):
        return {"api_key": postcode.KEY, "base_url": f"{url}/v1"}

    def post(self, customers):
        return ask("POST", self.service.url + "/places", customers)

    def test_each_customer_comes_back_whole_with_its_place(self):
        customers = [
            {"_id": "a", "postal_code": "9900", "n": 1, "_deleted": False},
            {"_id": "b", "postal_code": "0000"},
            {"_id": "c"},
            {"_id": "d", "postal_code": "0150", "_deleted": True},
            {"_id": "e", "postal_code": "15O"},
        ]
        reply = self.post(customers)
        self.assertEqual(reply.status, 200)
        place = {"town": "Kirkenes", "municipality": "Sør-Varanger"}
        self.assertEqual(
            reply.json,
            [
                {**customers[0], "place": place},
                {**customers[1], "place": None},
                customers[2],
                customers[3],
                {**customers[4], "place": None},
            ],
        )

    def test_a_code_is_looked_up_once_a_batch(self):
        self.post([{"_id": str(number), "postal_code": "9900"} for number in range(20)])
        self.assertEqual(self.api.state()["requests"]["total"], 1)

    def test_a_failing_api_fails_the_batch_and_names_the_customer(self):
        for fault in ("status", "truncate", "truncate-chunk", "truncate-json", "disconnect"):
            self.api.control("fault", kind=fault, status=500, after=1)
            reply = self.post([{"_id": "a", "postal_code": "9900"}, {"_id": "b", "postal_code": "5003"}])
            self.assertEqual(reply.status, 502, fault)
            self.assertIn("b: ", reply.json["message"])

    def test_a_404_for_another_reason_is_not_an_unknown_code(self):
        self.start(**self.environment(self.api.url) | {"base_url": self.api.url + "/v2"})
        self.assertEqual(self.post([{"_id": "a", "postal_code": "9900"}]).status, 502)

    def test_too_many_requests_are_waited_for(self):
        self.api.control("fault", kind="status", count=2, retry_after=0.01)
        self.assertEqual(self.post([{"_id": "a", "postal_code": "9900"}]).status, 200)

    def test_an_empty_batch_and_no_batch(self):
        self.assertEqual(self.post([]).json, [])
        self.assertEqual(self.post({"_id": "a"}).status, 400)


if __name__ == "__main__":
    unittest.main()
