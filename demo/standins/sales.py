"""A stand-in for a CRM's REST API: contacts, with OAuth2, pages, rate limits and webhooks.

As strict as such services are: tokens hold for a while and are refused afterwards, every
so many requests one comes too fast, an address that is taken is a conflict, and what a
change is told with is signed.
"""

import base64
import hashlib
import hmac
import http.client
import json
import threading
from urllib.parse import parse_qsl, urlencode, urlsplit

from standin import Answer, Refused, StandIn

CLIENT_ID = "sales-client"
CLIENT_SECRET = "demo-sales-secret-51d0"
REFRESH_TOKEN = "demo-sales-refresh-8e2a"
CONTACTS = 60
FIRST_ID = 1001
# One token is good for so many requests, and one request in so many comes too fast.
TOKEN_REQUESTS = 10
TOO_FAST_EVERY = 15
PAGE = 25
FIRST = ["Anna", "Birk", "Celia", "Dag", "Elin", "Finn", "Gro", "Håkon", "Inga", "Jens"]
LAST = ["Bakke", "Dale", "Engen", "Fjeld", "Hagen", "Lunde"]
CITIES = ["Bergen", "Hamar", "Molde", "Oslo"]
TAKES = ("name", "email", "city")


def contacts():
    """The 60 contacts of the start, by id."""
    found = {}
    for at in range(CONTACTS):
        first, last = FIRST[at % len(FIRST)], LAST[at // len(FIRST)]
        email = f"{first}.{last}@example.com".lower().replace("å", "a")
        found[FIRST_ID + at] = {
            "id": FIRST_ID + at,
            "name": f"{first} {last}",
            "email": email,
            "city": CITIES[at % len(CITIES)],
        }
    return found


class Sales(StandIn):
    name = "sales"
    port = 9256

    def load(self):
        self.contacts = contacts()
        self.next_id = FIRST_ID + CONTACTS
        self.tokens = {}
        self.codes = set()
        self.issued = 0
        self.asked = 0
        self.webhooks = {}
        self.told = []
        self.writes = {"created": 0, "updated": 0, "deleted": 0}

    def counters(self):
        return {
            "records": len(self.contacts),
            "contacts": self.contacts,
            "writes": self.writes,
            "tokens": self.issued,
            "webhooks": self.webhooks,
            "told": self.told,
        }

    def edit(self, identity, properties, at):
        """Somebody works in the CRM: who listens is told."""
        self.contacts[int(identity)].update(properties)
        self.tell("contact/update", int(identity))

    def delete(self, identity):
        del self.contacts[int(identity)]
        self.tell("contact/delete", int(identity))

    def answer(self, request):
        if request.path == "/oauth/authorize":
            return self.authorize(request)
        if request.path == "/oauth/token":
            return self.token(request)
        self.admit(request)
        self.asked += 1
        if self.asked % TOO_FAST_EVERY == 0:
            raise Refused(429, {"error": "too many requests"}, {"Retry-After": "0"})
        parts = request.path.strip("/").split("/")
        if parts[:2] == ["v1", "contacts"]:
            return self.of_contacts(request, parts[2:])
        if parts[:2] == ["v1", "webhooks"]:
            return self.of_webhooks(request, parts[2:])
        raise Refused(404, {"error": "there is nothing here"})

    # Who asks.

    def authorize(self, request):
        """The page where a person would log in; here everybody is let in at once."""
        if request.query.get("client_id") != CLIENT_ID:
            raise Refused(400, {"error": "unauthorized_client"})
        code = f"code-{len(self.codes) + 1}"
        self.codes.add(code)
        back = {"code": code, "state": request.query.get("state", "")}
        return Answer(302, None, {"Location": f"{request.query['redirect_uri']}?{urlencode(back)}"})

    def token(self, request):
        form = dict(parse_qsl(request.body.decode()))
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            raise Refused(401, {"error": "invalid_client"})
        by_code = form.get("grant_type") == "authorization_code" and form.get("code") in self.codes
        by_token = form.get("grant_type") == "refresh_token" and form.get("refresh_token") == REFRESH_TOKEN
        if not (by_code or by_token):
            raise Refused(400, {"error": "invalid_grant"})
        self.codes.discard(form.get("code"))
        self.issued += 1
        token = f"demo-sales-token-{self.issued:04d}"
        self.tokens = {token: TOKEN_REQUESTS}
        return Answer(200, {"access_token": token, "refresh_token": REFRESH_TOKEN, "token_type": "Bearer", "expires_in": 3600})

    def admit(self, request):
        token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.tokens.get(token, 0) == 0:
            raise Refused(401, {"error": "invalid_token"}, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        self.tokens[token] -= 1

    # Contacts.

    def of_contacts(self, request, rest):
        if not rest:
            if request.method == "GET":
                return self.listed(request)
            if request.method == "POST":
                return self.created(request)
            raise Refused(405, {"error": "method not allowed"}, {"Allow": "GET, POST"})
        identity = int(rest[0]) if rest[0].isdigit() else 0
        if identity not in self.contacts or len(rest) > 1:
            raise Refused(404, {"error": "there is no such contact"})
        if request.method == "GET":
            return Answer(200, self.contacts[identity])
        if request.method == "PATCH":
            self.contacts[identity].update(self.sent(request, identity))
            self.writes["updated"] += 1
            return Answer(200, self.contacts[identity])
        if request.method == "DELETE":
            del self.contacts[identity]
            self.writes["deleted"] += 1
            return Answer(204)
        raise Refused(405, {"error": "method not allowed"}, {"Allow": "GET, PATCH, DELETE"})

    def listed(self, request):
        limit = min(int(request.query.get("limit", PAGE)), PAGE)
        after = int(request.query.get("cursor", 0))
        left = [contact for identity, contact in sorted(self.contacts.items()) if identity > after]
        body = {"data": left[:limit]}
        if len(left) > limit:
            body["next_cursor"] = str(left[limit - 1]["id"])
        return Answer(200, body)

    def created(self, request):
        contact = {"id": self.next_id, **self.sent(request, self.next_id)}
        if "email" not in contact:
            raise Refused(422, {"error": "expected an email"})
        self.next_id += 1
        self.contacts[contact["id"]] = contact
        self.writes["created"] += 1
        return Answer(201, contact)

    def sent(self, request, identity):
        """What may be written of what was sent; an address belongs to one contact."""
        body = request.json()
        if unknown := sorted(set(body) - {"id", *TAKES}):
            raise Refused(422, {"error": f"unknown: {', '.join(unknown)}"})
        for other in self.contacts.values():
            if other["id"] != identity and other["email"] == body.get("email"):
                raise Refused(409, {"error": "the email is taken"})
        return {name: body[name] for name in TAKES if name in body}

    # Webhooks.

    def of_webhooks(self, request, rest):
        if request.method == "POST" and not rest:
            webhook = request.json()["webhook"]
            identity = str(len(self.webhooks) + 1)
            self.webhooks[identity] = {"topic": webhook["topic"], "address": webhook["address"], "secret": webhook["secret"]}
            return Answer(201, {"id": int(identity), "topic": webhook["topic"], "address": webhook["address"]})
        if request.method == "GET" and rest and rest[0] in self.webhooks:
            return Answer(200, {"id": int(rest[0]), "topic": self.webhooks[rest[0]]["topic"]})
        raise Refused(404, {"error": "there is no such webhook"})

    def tell(self, topic, identity):
        """Tells everybody who listens, from a thread: who listens may ask us at once."""
        body = json.dumps([{"id": identity, "topic": topic}]).encode()
        for webhook in self.webhooks.values():
            if webhook["topic"] == topic:
                threading.Thread(target=self.post, args=(webhook, body), daemon=True).start()

    def post(self, webhook, body):
        signature = base64.b64encode(hmac.new(webhook["secret"].encode(), body, hashlib.sha256).digest()).decode()
        url = urlsplit(webhook["address"])
        headers = {"Content-Type": "application/json", "X-Sales-Signature": signature}
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=10)
        try:
            connection.request("POST", url.path, body, headers)
            with connection.getresponse() as answer:
                status = answer.status
        except OSError:
            status = 0
        finally:
            connection.close()
        with self.lock:
            self.told.append({"topic": webhook["topic"], "status": status})
