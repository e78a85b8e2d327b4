"""Stand-ins for three systems that all hold people, and that all are written to: HR, support and billing.

Every person has a version that goes up with each change. A write says which version it was made from and is
refused with 412 where that is another one by now: in `If-Match` (support, billing) or as `version` in the body (HR).
Creating gives an id, so that creating twice makes two.

`settings` of the control endpoint takes `edit_before_write`, {"id": ..., "properties": {...}}: somebody else edits
that person in the moment before the next write of it is looked at.
"""

import re
from datetime import datetime, timezone

from standin import Answer, Refused, StandIn

FIELDS = ("name", "email", "phone", "title")
ONE = re.compile(r"/api/people/([^/]+)")
ALL = "/api/people"

ADA = {"name": "Ada Lund", "email": "ada.lund@example.com", "phone": "+47 220 01 001", "title": "Engineer"}
BO = {"name": "Bo Dahl", "email": "bo.dahl@example.com", "phone": "+47 220 01 002", "title": "Buyer"}
CAI = {"name": "Cai Moe", "email": "cai.moe@example.com", "phone": "+47 220 01 003", "title": "Clerk"}
DINA = {"name": "Dina Aas", "email": "dina.aas@example.com", "phone": "+47 220 01 004", "title": "Driver"}
EIR = {"name": "Eir Bakke", "email": "eir.bakke@example.com", "phone": "+47 220 01 005", "title": "Editor"}


def stamp(moment):
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class People(StandIn):
    """What the three share."""

    token = ""
    # When everybody who is there at first was changed last.
    first_day = 1
    # Whether a write says its version in the body, and not in If-Match.
    version_in_body = False
    # Who is there at first, in the order of ids.
    start = ()

    def load(self):
        self.people = {}
        self.clock = 0
        self.next_id = 1
        self.created_by_key = {}
        self.between = None
        self.writes = {"created": 0, "updated": 0, "unchanged": 0, "refused": 0, "by_others": 0}
        for person in self.start:
            self.take(str(self.next_id), dict(person), datetime(2026, 1, self.first_day, 8, tzinfo=timezone.utc))
            self.next_id += 1

    def counters(self):
        return {"people": {identity: person for identity, person in self.people.items() if not person.get("deleted")}, "writes": self.writes}

    def settings(self, values):
        self.between = values.pop("edit_before_write", self.between)
        super().settings(values)

    def edit(self, identity, properties, at):
        """Somebody who works in this system changes a person."""
        self.writes["by_others"] += 1
        self.take(identity, {**self.fields(identity), **properties}, at)

    def delete(self, identity):
        self.clock += 1
        self.people[identity] = {"id": identity, "deleted": True, "version": self.people[identity]["version"] + 1, "change": self.clock}

    def fields(self, identity):
        return {name: self.people[identity][name] for name in FIELDS if name in self.people[identity]}

    def take(self, identity, fields, at):
        self.clock += 1
        version = self.people.get(identity, {"version": 0})["version"] + 1
        self.people[identity] = {"id": identity, **fields, "version": version, "change": self.clock, "modified": stamp(at)}

    def answer(self, request):
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise Refused(401, {"error": "The token is wrong or missing."})
        if request.path == ALL and request.method == "GET":
            since = int(request.query.get("since") or 0)
            changed = [person for person in self.people.values() if person["change"] > since]
            return Answer(200, sorted(changed, key=lambda person: person["change"]))
        if request.path == ALL and request.method == "POST":
            return self.create(request)
        one = ONE.fullmatch(request.path)
        act = {"GET": self.read, "PUT": self.put}.get(request.method) if one else None
        if act is None:
            raise Refused(404, {"error": f"There is no {request.method} {request.path}."})
        if one[1] not in self.people or self.people[one[1]].get("deleted"):
            raise Refused(404, {"error": f"There is no person {one[1]}."})
        return act(one[1], request)

    def read(self, identity, _=None, status=200):
        person = self.people[identity]
        return Answer(status, person, {"ETag": f'"{person["version"]}"'})

    def create(self, request):
        """Creates a person (201). The same Idempotency-Key again is answered with the person that it made (200)."""
        fields = self.checked(request.json())
        key = request.headers.get("Idempotency-Key")
        if key and key in self.created_by_key:
            return self.read(self.created_by_key[key])
        identity, self.next_id = str(self.next_id), self.next_id + 1
        self.take(identity, fields, datetime.now(timezone.utc))
        self.created_by_key[key] = identity
        self.writes["created"] += 1
        return self.read(identity, status=201)

    def put(self, identity, request):
        """Replaces a person whose version is the one that was said; otherwise 412 with the person as it is."""
        body = request.json()
        if self.between and self.between["id"] == identity:
            between, self.between = self.between, None
            self.edit(identity, between["properties"], datetime.now(timezone.utc))
        said = body.pop("version", None) if self.version_in_body else request.headers.get("If-Match")
        expected = self.people[identity]["version"]
        if str(said) != (str(expected) if self.version_in_body else f'"{expected}"'):
            self.writes["refused"] += 1
            raise Refused(412, {"error": f"Person {identity} is at version {expected}; the write was made from {said}."})
        fields = self.checked(body)
        if fields == self.fields(identity):
            self.writes["unchanged"] += 1
        else:
            self.writes["updated"] += 1
            self.take(identity, fields, datetime.now(timezone.utc))
        return self.read(identity)

    @staticmethod
    def checked(person):
        unknown = sorted(set(person) - set(FIELDS)) if isinstance(person, dict) else ["body"]
        if unknown:
            raise Refused(422, {"error": f"Expected a person with {', '.join(FIELDS)}, found {', '.join(unknown)}."})
        return person


class Hr(People):
    name = "hr"
    port = 9257
    token = "demo-hr-token-8c1e"
    version_in_body = True
    first_day = 3
    start = (ADA, BO, CAI)


class Support(People):
    name = "support"
    port = 9258
    token = "demo-support-token-37fa"
    first_day = 2
    # The same people as in HR, by an address that is written otherwise; and one of its own.
    start = ({**ADA, "email": "Ada.Lund@Example.com"}, CAI, DINA)


class Billing(People):
    name = "billing"
    port = 9259
    token = "demo-billing-token-b402"
    start = (BO, DINA, EIR)
