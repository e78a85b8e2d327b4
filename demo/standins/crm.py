"""A stand-in for the target of an export: a small CRM that holds people.

It takes one person a request, checks what it is given, and counts what it wrote.
A person whose e-mail address is none is refused with 422, every time.
"""

import re

from standin import Answer, Refused, StandIn

TOKEN = "demo-crm-token-51d0"
FIELDS = ("name", "email", "department")
REQUIRED = ("name", "email")
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
ONE = re.compile(r"/api/people/([^/]+)")
ALL = "/api/people"


class Crm(StandIn):
    name = "crm"
    port = 9253

    def load(self):
        self.people = {}
        self.writes = {"created": 0, "updated": 0, "unchanged": 0, "deleted": 0, "missing": 0, "refused": 0}
        self.refused = {}

    def counters(self):
        return {"records": len(self.people), "writes": self.writes, "refused": self.refused}

    def edit(self, identity, properties, at):
        self.people[identity].update(properties)

    def delete(self, identity):
        del self.people[identity]

    def answer(self, request):
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, {"error": "The token is wrong or missing."})
        if request.path == ALL and request.method == "GET":
            return Answer(200, [{"id": identity, **person} for identity, person in sorted(self.people.items())])
        one = ONE.fullmatch(request.path)
        act = {"GET": self.read, "PUT": self.put, "DELETE": self.remove}.get(request.method) if one else None
        if act is None:
            raise Refused(404, {"error": f"There is no {request.method} {request.path}."})
        return act(one[1], request)

    def read(self, identity, _):
        if identity not in self.people:
            raise Refused(404, {"error": f"There is no person {identity}."})
        return Answer(200, {"id": identity, **self.people[identity]})

    def put(self, identity, request):
        """Creates (201) or updates (200) a person. The body is the whole person."""
        person = request.json()
        self.check(identity, person)
        before = self.people.get(identity)
        self.people[identity] = person
        self.writes["created" if before is None else "unchanged" if before == person else "updated"] += 1
        return Answer(201 if before is None else 200, {"id": identity, **person})

    def remove(self, identity, _):
        if self.people.pop(identity, None) is None:
            self.writes["missing"] += 1
            raise Refused(404, {"error": f"There is no person {identity}."})
        self.writes["deleted"] += 1
        return Answer(204)

    def check(self, identity, person):
        if not isinstance(person, dict):
            raise self.refusal(identity, "body", "expected a JSON object")
        for field in person:
            if field not in FIELDS:
                raise self.refusal(identity, field, f"unknown; expected {', '.join(FIELDS)}")
        for field in REQUIRED:
            if not isinstance(person.get(field), str) or not person[field].strip():
                raise self.refusal(identity, field, "required")
        if not EMAIL.fullmatch(person["email"]):
            raise self.refusal(identity, "email", f"{person['email']!r} is not an e-mail address")

    def refusal(self, identity, field, why):
        self.writes["refused"] += 1
        self.refused[identity] = self.refused.get(identity, 0) + 1
        return Refused(422, {"error": f"{field}: {why}", "field": field})
