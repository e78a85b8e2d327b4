"""A stand-in for HubSpot's CRM API: contacts, listed and searched.

As strict as the API is: a bearer token (keys in the URL ended in 2022), `limit`
of at most 100, a search body that is JSON and says so, dates as epoch
milliseconds, and a search window of 10,000 results.
"""

import random
from datetime import datetime, timedelta, timezone

from standin import Answer, Refused, StandIn

TOKEN = "demo-hubspot-token-7c1f"
CONTACTS = 250
SEED = 20240501
DEFAULT_PROPERTIES = ["createdate", "email", "firstname", "hs_object_id", "lastmodifieddate", "lastname"]
ALWAYS = ["createdate", "hs_object_id", "lastmodifieddate"]
DATES = ("createdate", "lastmodifieddate")
LIST_PATH = "/crm/v3/objects/contacts"
SEARCH_PATH = LIST_PATH + "/search"
LIMIT_MAX = 100
LIMIT_DEFAULT = 10
COMPARE = {
    "GT": lambda found, wanted: found > wanted,
    "GTE": lambda found, wanted: found >= wanted,
    "LT": lambda found, wanted: found < wanted,
    "LTE": lambda found, wanted: found <= wanted,
    "EQ": lambda found, wanted: found == wanted,
    "NEQ": lambda found, wanted: found != wanted,
}
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
FIRST = ["Ada", "Åse", "Bjørn", "Camilla", "Eirik", "Frida", "Geir", "Hanne", "Ida", "Jonas",
         "Kari", "Lars", "Mari", "Nils", "Oda", "Per", "Ragnhild", "Siv", "Tor", "Øyvind"]
LAST = ["Aas", "Berg", "Dahl", "Eide", "Foss", "Haugen", "Iversen", "Kvam", "Lie", "Moen",
        "Nygård", "Olsen", "Ruud", "Sæther", "Vik"]
COMPANIES = ["Fjord Analyse", "Nordlys Data", "Solberg & Sønn", "Tind Konsult", "Vestkyst Marine"]
CITIES = ["Bergen", "Bodø", "Oslo", "Stavanger", "Tromsø", "Trondheim"]
STAGES = ["subscriber", "lead", "lead", "opportunity", "customer"]
ASCII = str.maketrans({"å": "a", "æ": "ae", "ø": "o"})


def milliseconds(moment):
    """Whole milliseconds since 1970."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def iso(moment):
    """As the API prints instants: three decimals and a Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def contacts():
    """The 250 contacts of the start, by id in the order of their creation.

    Contacts 61 to 180 were touched by one import and share a millisecond: more than
    a page of them. The contact that was touched last is alone in its millisecond.
    """
    rng = random.Random(SEED)
    start = datetime(2024, 1, 8, 7, 30, tzinfo=timezone.utc)
    imported = datetime(2024, 3, 1, 12, 0, 0, 250_000, tzinfo=timezone.utc)
    found = {}
    for number in range(1, CONTACTS + 1):
        first, last = rng.choice(FIRST), rng.choice(LAST)
        created = start + timedelta(hours=3 * number, milliseconds=rng.randrange(1000))
        touched = created + timedelta(days=30 + number / 10, milliseconds=rng.randrange(1000))
        if 61 <= number <= 180:
            touched = imported
        identity = str(51 + 50 * number)
        found[identity] = {
            "createdate": iso(created),
            "city": rng.choice(CITIES),
            "company": rng.choice(COMPANIES),
            "email": f"{first}.{last}.{number}@example.com".lower().translate(ASCII),
            "firstname": first,
            "hs_object_id": identity,
            "lastmodifieddate": iso(touched),
            "lastname": last,
            "lifecyclestage": rng.choice(STAGES),
            "phone": f"+47 {rng.randrange(400, 500)} {rng.randrange(10, 100)} {rng.randrange(100, 1000)}",
        }
    return found


def invalid(message):
    return Refused(400, {"status": "error", "message": message, "category": "VALIDATION_ERROR"})


class HubSpot(StandIn):
    name = "hubspot"
    port = 9251

    def load(self):
        self.contacts = contacts()
        self.search_window = 10_000

    def counters(self):
        return {"records": len(self.contacts), "search_window": self.search_window}

    def settings(self, values):
        for name, value in values.items():
            if name != "search_window":
                raise KeyError(name)
            self.search_window = int(value)

    def edit(self, identity, properties, at):
        contact = self.contacts[identity]
        contact.update(properties)
        contact["lastmodifieddate"] = iso(at)

    def delete(self, identity):
        del self.contacts[identity]

    def answer(self, request):
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            message = "Authentication credentials not found. This API supports OAuth 2.0 authentication."
            raise Refused(401, {"status": "error", "message": message, "category": "INVALID_AUTHENTICATION"})
        routes = {LIST_PATH: ("GET", self.listed), SEARCH_PATH: ("POST", self.searched)}
        if request.path not in routes:
            raise Refused(404, {"status": "error", "message": "resource not found", "category": "OBJECT_NOT_FOUND"})
        method, act = routes[request.path]
        if request.method != method:
            raise Refused(405, {"status": "error", "message": "Method Not Allowed"}, {"Allow": method})
        return act(request)

    def listed(self, request):
        limit = self.limit(request.query.get("limit", LIMIT_DEFAULT))
        after = self.whole(request.query.get("after", 0), "after")
        wanted = [name for name in request.query.get("properties", "").split(",") if name]
        identities = [identity for identity in self.contacts if int(identity) > after]
        page = identities[:limit]
        body = {"results": [self.shown(identity, wanted) for identity in page]}
        if len(identities) > limit:
            link = f"http://{request.headers['Host']}{LIST_PATH}?limit={limit}&after={page[-1]}"
            body["paging"] = {"next": {"after": page[-1], "link": link}}
        return Answer(200, body)

    def searched(self, request):
        if request.headers.get_content_type() != "application/json":
            raise Refused(415, {"status": "error", "message": "Expected Content-Type application/json."})
        query = request.json()
        if not isinstance(query, dict):
            raise invalid("Expected a JSON object.")
        limit = self.limit(query.get("limit", LIMIT_DEFAULT))
        after = self.whole(query.get("after") or 0, "after")
        if after + limit > self.search_window:
            raise invalid(f"The total of after and limit is over the window of {self.search_window} results.")
        matches = [identity for identity in self.contacts if self.matches(identity, query.get("filterGroups", []))]
        self.sort(matches, query.get("sorts", []))
        page = matches[after : after + limit]
        wanted = query.get("properties", [])
        body = {"total": len(matches), "results": [self.shown(identity, wanted) for identity in page]}
        if after + limit < len(matches):
            body["paging"] = {"next": {"after": str(after + limit)}}
        return Answer(200, body)

    def matches(self, identity, groups):
        """True when one group has all its filters fulfilled, or when there are none."""
        if not isinstance(groups, list) or len(groups) > 5:
            raise invalid("filterGroups: expected a list of at most 5 groups.")
        for group in groups:
            filters = group.get("filters") if isinstance(group, dict) else None
            if not filters or len(filters) > 6:
                raise invalid("filters: expected 1 to 6 filters in every group.")
        held = [all(self.holds(identity, one) for one in group["filters"]) for group in groups]
        return any(held) or not groups

    def holds(self, identity, one):
        name, operator, value = one.get("propertyName"), one.get("operator"), one.get("value")
        if operator not in COMPARE:
            raise invalid(f"operator: expected one of {', '.join(COMPARE)}; found {operator!r}")
        if not any(name in contact for contact in self.contacts.values()):
            raise invalid(f"There was a problem with the request: there is no property {name!r}.")
        found = self.contacts[identity].get(name)
        if found is None or value is None:
            return False
        if name in DATES:
            return COMPARE[operator](
                milliseconds(datetime.fromisoformat(found)), self.whole(value, f"{name} in epoch milliseconds")
            )
        if name == "hs_object_id":
            return COMPARE[operator](int(found), self.whole(value, name))
        return COMPARE[operator](found, str(value))

    @staticmethod
    def whole(value, name):
        text = str(value)
        if isinstance(value, bool) or not text.isascii() or not text.isdigit():
            raise invalid(f"{name}: expected a whole number, found {value!r}")
        return int(text)

    def limit(self, value):
        limit = self.whole(value, "limit")
        if not 1 <= limit <= LIMIT_MAX:
            raise invalid(f"limit: expected 1 to {LIMIT_MAX}, found {limit}")
        return limit

    def sort(self, identities, sorts):
        if not sorts:
            return
        if len(sorts) > 1:
            raise invalid("sorts: expected at most one.")
        name, direction = sorts[0].get("propertyName"), sorts[0].get("direction", "ASCENDING")
        if direction not in ("ASCENDING", "DESCENDING"):
            raise invalid(f"direction: expected ASCENDING or DESCENDING, found {direction!r}")
        identities.sort(key=lambda identity: self.contacts[identity].get(name) or "", reverse=direction == "DESCENDING")

    def shown(self, identity, wanted):
        contact = self.contacts[identity]
        names = [*dict.fromkeys([*wanted, *ALWAYS])] if wanted else DEFAULT_PROPERTIES
        return {
            "id": identity,
            "properties": {name: contact.get(name) for name in sorted(names)},
            "createdAt": contact["createdate"],
            "updatedAt": contact["lastmodifieddate"],
            "archived": False,
        }
