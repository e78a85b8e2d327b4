"""A stand-in for GitHub's REST API: the repositories of the account behind a token.

As strict as the API is: a token, a User-Agent, `per_page` cut to 100, pages named
by the `Link` header, `since` as an ISO 8601 instant, whole seconds, integer ids.
"""

import random
from datetime import datetime, timedelta, timezone
from urllib.parse import urlencode

from standin import Answer, Refused, StandIn, instant

TOKEN = "demo-github-token-0c3a"
ACCOUNT = "tind-konsult"
REPOSITORIES = 130
SEED = 20240601
PATH = "/user/repos"
PER_PAGE_DEFAULT = 30
PER_PAGE_MAX = 100
LANGUAGES = ["Python", "Rust", "TypeScript", "Go", "Java", None]
SUBJECTS = ["invoice", "ledger", "tide", "parcel", "sensor", "timetable", "catalogue", "payroll", "harbour", "roster"]
KINDS = ["api", "importer", "console", "report", "model", "client", "tools", "docs", "proxy", "archive", "schema",
         "worker", "gateway"]
SORTS = ("created", "updated", "pushed", "full_name")


def iso(moment):
    """As the API prints instants: whole seconds and a Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def repositories():
    """The 130 repositories of the start, by id. The last touched one is alone in its second."""
    rng = random.Random(SEED)
    start = datetime(2021, 2, 1, 9, 0, tzinfo=timezone.utc)
    names = [f"{subject}-{kind}" for subject in SUBJECTS for kind in KINDS]
    rng.shuffle(names)
    found = {}
    for number, name in enumerate(names[:REPOSITORIES], 1):
        created = start + timedelta(days=7 * number, seconds=rng.randrange(36_000))
        identity = 340_000_000 + 4_099_321 * number + rng.randrange(1000)
        fork, private, archived = rng.random() < 0.2, rng.random() < 0.4, rng.random() < 0.15
        found[identity] = {
            "id": identity,
            "node_id": f"R_{identity:x}",
            "name": name,
            "full_name": f"{ACCOUNT}/{name}",
            "private": private,
            "owner": {"login": ACCOUNT, "id": 7_411_902, "type": "Organization", "site_admin": False},
            "html_url": f"https://github.com/{ACCOUNT}/{name}",
            "description": f"The {name.replace('-', ' ')}" if rng.random() < 0.8 else None,
            "fork": fork,
            "language": rng.choice(LANGUAGES),
            "topics": sorted(rng.sample(SUBJECTS, rng.randrange(3))),
            "stargazers_count": rng.randrange(120),
            "forks_count": rng.randrange(9),
            "open_issues_count": rng.randrange(14),
            "size": rng.randrange(20, 90_000),
            "archived": archived,
            "disabled": False,
            "visibility": "private" if private else "public",
            "default_branch": "main",
            "created_at": iso(created),
            "updated_at": iso(created + timedelta(days=rng.randrange(1, 40), seconds=number)),
            "pushed_at": iso(created + timedelta(days=rng.randrange(1, 30))),
        }
    return found


class GitHub(StandIn):
    name = "github"
    port = 9252

    def load(self):
        self.repositories = repositories()

    def counters(self):
        return {"records": len(self.repositories)}

    def edit(self, identity, properties, at):
        repository = self.repositories[int(identity)]
        repository.update(properties)
        repository["updated_at"] = iso(at)

    def delete(self, identity):
        del self.repositories[int(identity)]

    def answer(self, request):
        if not request.headers.get("User-Agent"):
            raise Refused(403, {"message": "Request forbidden by administrative rules. User-Agent is required."})
        if request.headers.get("Authorization") not in (f"Bearer {TOKEN}", f"token {TOKEN}"):
            raise Refused(401, {"message": "Bad credentials", "status": "401"})
        if request.path != PATH or request.method != "GET":
            raise Refused(404, {"message": "Not Found", "status": "404"})
        if "type" in request.query and {"visibility", "affiliation"} & set(request.query):
            raise invalid("If you specify visibility or affiliation, you cannot specify type.")
        rows = self.ordered(request.query)
        return self.page(request, [row for row in rows if self.within(row, request.query)])

    @staticmethod
    def within(row, query):
        """`since` and `before` are both exclusive: updated after, updated before."""
        touched = instant(row["updated_at"])
        return (
            ("since" not in query or touched > moment(query["since"], "since"))
            and ("before" not in query or touched < moment(query["before"], "before"))
            and query.get("visibility", "all") in ("all", row["visibility"])
        )

    def ordered(self, query):
        sort = query.get("sort", "full_name")
        if sort not in SORTS:
            raise invalid(f"sort: expected one of {', '.join(SORTS)}; found {sort!r}")
        direction = query.get("direction", "asc" if sort == "full_name" else "desc")
        if direction not in ("asc", "desc"):
            raise invalid(f"direction: expected asc or desc; found {direction!r}")
        field = sort if sort == "full_name" else f"{sort}_at"
        return sorted(self.repositories.values(), key=lambda row: row[field], reverse=direction == "desc")

    def page(self, request, rows):
        per_page = min(positive(request.query.get("per_page", PER_PAGE_DEFAULT), "per_page"), PER_PAGE_MAX)
        page = positive(request.query.get("page", 1), "page")
        last = max(1, -(-len(rows) // per_page))
        links = {}
        if page > 1:
            links.update(prev=min(page - 1, last), first=1)
        if page < last:
            links.update(next=page + 1, last=last)
        headers = {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": str(max(0, 4999 - self.total))}
        if links:
            base = f"http://{request.headers['Host']}{PATH}"
            headers["Link"] = ", ".join(
                f'<{base}?{urlencode({**request.query, "page": number})}>; rel="{relation}"'
                for relation, number in links.items()
            )
        return Answer(200, rows[(page - 1) * per_page : page * per_page], headers)


def invalid(message):
    return Refused(422, {"message": message, "status": "422"})


def positive(value, name):
    text = str(value)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise invalid(f"{name}: expected a whole number from 1, found {value!r}")
    return int(text)


def moment(text, name):
    try:
        return instant(text)
    except ValueError as error:
        raise invalid(f"{name}: expected an ISO 8601 instant, found {text!r}") from error
