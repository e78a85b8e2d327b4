"""The stand-ins are as strict as the APIs that they stand in for."""

import http.client
import json
import socket
import subprocess
import sys
import time
import unittest
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs, urlsplit

from support import STANDINS, Running, ask

import crm
import github
import hubspot
import postcode


class StandInCase(unittest.TestCase):
    kind = None

    def setUp(self):
        self.running = Running(self.kind)
        self.addCleanup(self.running.stop)
        self.url = self.running.url


class HubSpot(StandInCase):
    kind = hubspot.HubSpot
    bearer = {"Authorization": f"Bearer {hubspot.TOKEN}"}

    def list(self, **query):
        return ask("GET", self.url + hubspot.LIST_PATH, headers=self.bearer, **query)

    def search(self, **body):
        return ask("POST", self.url + hubspot.SEARCH_PATH, body, self.bearer)

    def since(self, value, operator="GTE", **more):
        wanted = {"propertyName": "lastmodifieddate", "operator": operator, "value": value}
        return self.search(filterGroups=[{"filters": [wanted]}], **more)

    def all_pages(self, first):
        """The results of a page function, called with `after` until there is no next."""
        rows, after, pages = [], {}, 0
        while True:
            page = first(**after).json
            rows += page["results"]
            pages += 1
            if "paging" not in page:
                return rows, pages
            after = {"after": page["paging"]["next"]["after"]}

    def test_a_list_has_250_contacts_over_three_pages(self):
        rows, pages = self.all_pages(lambda **after: self.list(limit=100, **after))
        self.assertEqual((len(rows), pages), (250, 3))
        self.assertEqual(len({row["id"] for row in rows}), 250)

    def test_the_data_is_the_same_after_every_start(self):
        self.assertEqual(hubspot.contacts(), hubspot.contacts())
        row = self.list(limit=1).json["results"][0]
        self.assertEqual(row["id"], "101")
        self.assertEqual(row["properties"]["hs_object_id"], "101")
        self.assertEqual(row["updatedAt"], row["properties"]["lastmodifieddate"])

    def test_a_page_has_ten_when_nothing_is_said(self):
        self.assertEqual(len(self.list().json["results"]), 10)

    def test_limits_outside_1_to_100_are_refused(self):
        for limit in (0, 101, -1, "ten"):
            self.assertEqual(self.list(limit=limit).status, 400, limit)
            self.assertEqual(self.search(limit=limit).status, 400, limit)

    def test_only_the_properties_asked_for_and_the_fixed_ones_are_shown(self):
        row = self.list(limit=1, properties="city,phone").json["results"][0]
        self.assertEqual(
            sorted(row["properties"]), ["city", "createdate", "hs_object_id", "lastmodifieddate", "phone"]
        )
        row = self.list(limit=1).json["results"][0]
        self.assertEqual(
            sorted(row["properties"]),
            ["createdate", "email", "firstname", "hs_object_id", "lastmodifieddate", "lastname"],
        )

    def test_gt_and_gte_differ_by_the_ones_of_that_millisecond(self):
        moment = datetime(2024, 3, 1, 12, 0, 0, 250_000, tzinfo=timezone.utc)
        value = (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(milliseconds=1)
        inclusive, exclusive = self.since(str(value), limit=1).json, self.since(value, "GT", limit=1).json
        self.assertEqual(inclusive["total"] - exclusive["total"], 120)
        before = self.since(value, "LT", limit=1).json
        self.assertEqual(before["total"] + inclusive["total"], 250)

    def test_a_search_is_paged_by_position_and_sorted(self):
        order = [{"propertyName": "lastmodifieddate", "direction": "ASCENDING"}]
        rows, pages = self.all_pages(lambda **after: self.search(limit=100, sorts=order, **after))
        stamps = [row["properties"]["lastmodifieddate"] for row in rows]
        self.assertEqual((len(rows), pages), (250, 3))
        self.assertEqual(stamps, sorted(stamps))
        self.assertLess(stamps[-2], stamps[-1])

    def test_dates_are_searched_in_epoch_milliseconds_only(self):
        for value in ("2024-03-01T12:00:00.250Z", "1709294400.25", None):
            reply = self.since(value)
            if value is None:
                self.assertEqual(reply.json["total"], 0)
            else:
                self.assertEqual(reply.status, 400, value)

    def test_unknown_operators_and_properties_and_empty_groups_are_refused(self):
        bad = [
            [{"filters": [{"propertyName": "lastmodifieddate", "operator": ">", "value": "1"}]}],
            [{"filters": [{"propertyName": "lastmodified", "operator": "GT", "value": "1"}]}],
            [{"filters": []}],
            [{}],
            "lastmodifieddate",
        ]
        for groups in bad:
            self.assertEqual(self.search(filterGroups=groups).status, 400, groups)

    def test_a_search_ends_at_its_window(self):
        self.running.control("settings", search_window=150)
        self.assertEqual(self.search(limit=100, after="50").status, 200)
        self.assertEqual(self.search(limit=100, after="51").status, 400)

    def test_a_search_is_json_and_says_so(self):
        url = self.url + hubspot.SEARCH_PATH
        self.assertEqual(ask("POST", url, "{}", {**self.bearer, "Content-Type": "text/plain"}).status, 415)
        self.assertEqual(ask("POST", url, "{", {**self.bearer, "Content-Type": "application/json"}).status, 400)
        self.assertEqual(ask("GET", url, headers=self.bearer).status, 405)

    def test_a_wrong_token_or_a_key_in_the_url_is_401(self):
        url = self.url + hubspot.LIST_PATH
        self.assertEqual(ask("GET", url).status, 401)
        self.assertEqual(ask("GET", url, headers={"Authorization": "Bearer wrong"}).status, 401)
        self.assertEqual(ask("GET", url, hapikey=hubspot.TOKEN).status, 401)

    def test_an_edit_moves_the_time_and_a_delete_removes(self):
        self.running.control("edit", id="101", properties={"city": "Hamar"}, at="2026-01-02T03:04:05.678Z")
        row = self.list(limit=1, properties="city").json["results"][0]["properties"]
        self.assertEqual((row["city"], row["lastmodifieddate"]), ("Hamar", "2026-01-02T03:04:05.678Z"))
        self.assertEqual(self.running.control("delete", id="101")["records"], 249)
        self.assertEqual(self.running.control("reset")["records"], 250)
        self.assertNotEqual(self.list(limit=1, properties="city").json["results"][0]["properties"]["city"], "Hamar")


class GitHub(StandInCase):
    kind = github.GitHub
    token = {"Authorization": f"Bearer {github.TOKEN}", "User-Agent": "test"}

    def repos(self, **query):
        return ask("GET", self.url + github.PATH, headers=self.token, **query)

    def links(self, reply):
        found = {}
        for part in filter(None, reply.headers.get("Link", "").split(", ")):
            target, relation = part.split("; ")
            found[relation[5:-1]] = target[1:-1]
        return found

    def test_the_link_header_leads_through_all_repositories(self):
        url, rows, pages = self.url + github.PATH + "?per_page=50&sort=created&direction=asc", [], 0
        while url:
            reply = ask("GET", url, headers=self.token)
            rows += reply.json
            pages += 1
            url = self.links(reply).get("next")
        self.assertEqual((len(rows), pages), (130, 3))
        self.assertEqual(len({row["id"] for row in rows}), 130)
        created = [row["created_at"] for row in rows]
        self.assertEqual(created, sorted(created))

    def test_links_name_first_prev_next_and_last(self):
        links = self.links(self.repos(per_page=50, page=2))
        pages = {name: parse_qs(urlsplit(url).query)["page"] for name, url in links.items()}
        self.assertEqual(pages, {"prev": ["1"], "first": ["1"], "next": ["3"], "last": ["3"]})
        self.assertEqual(self.links(self.repos(since="2099-01-01T00:00:00Z")), {})

    def test_ids_are_integers(self):
        self.assertTrue(all(type(row["id"]) is int for row in self.repos().json))

    def test_a_page_has_30_when_nothing_is_said_and_100_at_most(self):
        self.assertEqual(len(self.repos().json), 30)
        self.assertEqual(len(self.repos(per_page=101).json), 100)
        self.assertEqual(self.repos(per_page=0).status, 422)

    def test_since_is_exclusive_and_an_instant(self):
        latest = max(row["updated_at"] for row in github.repositories().values())
        self.assertEqual(self.repos(since=latest).json, [])
        earlier = (datetime.fromisoformat(latest) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.assertEqual([row["updated_at"] for row in self.repos(since=earlier).json], [latest])
        for wrong in ("yesterday", "2024-01-01T00:00:00", "1709294400"):
            self.assertEqual(self.repos(since=wrong).status, 422, wrong)

    def test_visibility_does_not_go_with_type(self):
        self.assertEqual(self.repos(visibility="public", type="owner").status, 422)
        self.assertTrue(all(not row["private"] for row in self.repos(visibility="public").json))

    def test_a_wrong_token_is_401_and_no_user_agent_is_403(self):
        url = self.url + github.PATH
        self.assertEqual(ask("GET", url, headers={"User-Agent": "test"}).status, 401)
        self.assertEqual(ask("GET", url, headers={"Authorization": "Bearer x", "User-Agent": "test"}).status, 401)
        self.assertEqual(ask("GET", url, headers={"Authorization": f"Bearer {github.TOKEN}"}).status, 403)


class Crm(StandInCase):
    kind = crm.Crm
    bearer = {"Authorization": f"Bearer {crm.TOKEN}"}
    ada = {"name": "Ada", "email": "ada@example.com"}

    def one(self, method, identity, body=None):
        return ask(method, f"{self.url}/api/people/{identity}", body, self.bearer)

    def test_a_person_is_created_updated_and_deleted_and_counted(self):
        self.assertEqual(self.one("PUT", "1", self.ada).status, 201)
        self.assertEqual(self.one("PUT", "1", self.ada).status, 200)
        self.assertEqual(self.one("PUT", "1", {**self.ada, "department": "Sales"}).status, 200)
        self.assertEqual(self.one("GET", "1").json, {"id": "1", **self.ada, "department": "Sales"})
        self.assertEqual(self.one("DELETE", "1").status, 204)
        self.assertEqual(self.one("DELETE", "1").status, 404)
        self.assertEqual(
            self.running.state()["writes"],
            {"created": 1, "updated": 1, "unchanged": 1, "deleted": 1, "missing": 1, "refused": 0},
        )

    def test_what_is_no_person_is_refused_with_422_and_counted_by_id(self):
        bad = [{"name": "Ada"}, {**self.ada, "email": "ada.example.com"}, {**self.ada, "_id": "1"}, [self.ada], {**self.ada, "name": " "}]
        for person in bad:
            self.assertEqual(self.one("PUT", "1", person).status, 422, person)
        state = self.running.state()
        self.assertEqual((state["records"], state["refused"]), (0, {"1": 5}))

    def test_a_wrong_token_is_401(self):
        self.assertEqual(ask("GET", self.url + "/api/people").status, 401)
        self.assertEqual(ask("PUT", self.url + "/api/people/1", self.ada, {"Authorization": "Bearer x"}).status, 401)
        self.assertEqual(self.running.state()["records"], 0)


class Postcode(StandInCase):
    kind = postcode.Postcode
    key = {"X-Api-Key": postcode.KEY}

    def place(self, code, headers=None):
        return ask("GET", f"{self.url}/v1/postcodes/{code}", headers=self.key if headers is None else headers)

    def test_a_code_has_a_place_and_an_unknown_one_none(self):
        self.assertEqual(self.place("9900").json, {"code": "9900", "town": "Kirkenes", "municipality": "Sør-Varanger"})
        self.assertEqual(self.place("0000").status, 404)
        self.assertEqual(self.place("150").status, 400)

    def test_a_wrong_key_is_401(self):
        self.assertEqual(self.place("9900", {}).status, 401)
        self.assertEqual(self.place("9900", {"X-Api-Key": "x"}).status, 401)


class Faults(StandInCase):
    kind = postcode.Postcode
    key = {"X-Api-Key": postcode.KEY}

    def place(self, code="9900"):
        return ask("GET", f"{self.url}/v1/postcodes/{code}", headers=self.key)

    def test_too_many_requests_says_when_to_come_back_and_is_over_after_its_count(self):
        self.running.control("fault", kind="status", count=2, retry_after=3)
        for _ in range(2):
            reply = self.place()
            self.assertEqual((reply.status, reply.headers["Retry-After"]), (429, "3"))
        self.assertEqual(self.place().status, 200)

    def test_a_fault_can_wait_and_can_mind_one_path_only(self):
        self.running.control("fault", kind="status", status=503, after=1, path="/v1/postcodes/9")
        statuses = [self.place(code).status for code in ("9900", "0150", "9900", "9900")]
        self.assertEqual(statuses, [200, 200, 503, 200])

    def test_a_truncated_answer_is_short_of_its_length(self):
        self.running.control("fault", kind="truncate")
        with self.assertRaises(http.client.IncompleteRead):
            self.place()

    def test_a_chunked_answer_can_lack_its_last_chunk(self):
        self.running.control("fault", kind="truncate-chunk")
        with self.assertRaises(http.client.IncompleteRead):
            self.place()

    def test_an_answer_can_be_whole_for_http_and_cut_as_json(self):
        self.running.control("fault", kind="truncate-json")
        reply = self.place()
        self.assertEqual(reply.status, 200)
        with self.assertRaises(json.JSONDecodeError):
            reply.json

    def test_a_connection_can_end_without_an_answer(self):
        self.running.control("fault", kind="disconnect")
        with self.assertRaises(http.client.RemoteDisconnected):
            self.place()

    def test_a_slow_answer_takes_its_time_and_is_right(self):
        self.running.control("fault", kind="slow", seconds=0.3)
        started = time.monotonic()
        self.assertEqual(self.place().status, 200)
        self.assertGreaterEqual(time.monotonic() - started, 0.3)

    def test_faults_are_cleared(self):
        self.running.control("fault", kind="status", count=100)
        self.assertEqual(self.running.control("clear-faults")["faults"], [])
        self.assertEqual(self.place().status, 200)

    def test_requests_are_counted_but_not_those_of_the_control(self):
        self.place()
        self.place("0000")
        requests = self.running.state()["requests"]
        self.assertEqual((requests["total"], requests["by_status"]), (2, {"200": 1, "404": 1}))
        self.assertEqual(requests["latest"][1]["path"], "/v1/postcodes/0000")

    def test_orders_that_make_no_sense_are_refused(self):
        control = self.url + "/__control"
        for order, status in [
            ({"operation": "explode"}, 400),
            ({"operation": "fault", "kind": "explode"}, 400),
            ({"operation": "fault", "kind": "slow", "minutes": 1}, 400),
            ({"operation": "edit", "id": "0000"}, 404),
            ({"operation": "settings", "search_window": 1}, 404),
            ([], 400),
        ]:
            self.assertEqual(ask("POST", control, order).status, status, order)


class Runner(unittest.TestCase):
    """`run.py` is what the demo and the project tests start."""

    def test_it_ends_with_its_standard_input_and_with_a_signal(self):
        for how in ("eof", "signal"):
            runner = subprocess.Popen(
                [sys.executable, STANDINS / "run.py", "--until-eof", "--any-port"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            lines = [runner.stdout.readline() for _ in range(10)]
            self.assertEqual(lines[9], "ready\n", lines)
            url = lines[3].split()[1]
            self.assertEqual(ask("GET", url + "/__control").json["records"], 15)
            if how == "eof":
                runner.stdin.close()
            else:
                runner.terminate()
            self.assertEqual(runner.wait(30), 0, how)
            runner.stdin.close()
            runner.stdout.close()

    def test_a_taken_port_is_named_and_what_to_do(self):
        with socket.socket() as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                holder.bind(("127.0.0.1", crm.Crm.port))
                holder.listen()
            except OSError:
                pass  # Taken by somebody else: just as good.
            ended = subprocess.run(
                [sys.executable, STANDINS / "run.py", "--until-eof"],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
            )
        self.assertEqual(ended.returncode, 1)
        self.assertRegex(ended.stderr, r"port 925\d cannot be used.*test-env\.json")


if __name__ == "__main__":
    unittest.main()
