"""Writes the expected files of the examples that are too long to write by hand.

    python3 demo/examples_expected.py

They come from the data of the stand-ins and from what each example's README says
its pipes do, told a second time in Python; the node has no part in it. A test
compares them with what is committed.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "demo" / "standins"))

from github import repositories  # noqa: E402  (the stand-ins are on the path only now)
from hubspot import contacts  # noqa: E402
from sales import contacts as sales_contacts  # noqa: E402


def addresses():
    """Every contact of HubSpot with its address alone."""
    return [{"_id": identity, "email": contact["email"]} for identity, contact in contacts().items()]


def oslo_customers():
    """The contacts in Oslo that are customers; `modified` is on the test's blacklist."""
    return [
        {
            "_id": identity,
            "city": "Oslo",
            "company": contact["company"],
            "email": contact["email"],
            "name": f"{contact['firstname']} {contact['lastname']}",
        }
        for identity, contact in contacts().items()
        if contact["city"] == "Oslo" and contact["lifecyclestage"] == "customer"
    ]


def portfolio():
    """Public repositories of the account's own, in use, with at least 50 stars."""
    return [
        {
            "_id": str(identity),
            "language": row["language"] or "unknown",
            "name": row["name"],
            "owner": row["owner"]["login"],
            "stars": row["stargazers_count"],
            "updated": row["updated_at"],
            "url": row["html_url"],
        }
        for identity, row in repositories().items()
        if not (row["private"] or row["fork"] or row["archived"]) and row["stargazers_count"] >= 50
    ]


def people():
    """Everybody that the example's embedded source holds: nobody is filtered on the way out."""
    pipe = json.loads((ROOT / "examples/write-back/pipes/people.conf.json").read_text("utf-8"))
    return pipe["source"]["entities"]


def sales():
    """The sales CRM when everything has come to rest: what the staff says of its contacts is there.

    Who is no contact becomes one and carries the origin, who has left is none any more.
    """
    pipe = json.loads((ROOT / "examples/crm/pipes/staff.conf.json").read_text("utf-8"))
    found = sales_contacts()
    by_email = {contact["email"]: identity for identity, contact in found.items()}
    for person in pipe["source"]["entities"]:
        told = {name: person[name] for name in ("name", "email", "city")}
        identity = by_email.get(person["email"])
        if person.get("left"):
            found.pop(identity)
        elif identity:
            found[identity].update(told)
        else:
            identity = max(sales_contacts()) + 1
            found[identity] = {"id": identity, "origin": f"staff:{person['_id']}", **told}
    return [
        {"_id": str(identity), **{name: value for name, value in contact.items() if name != "id"}}
        for identity, contact in found.items()
    ]


FILES = {
    "examples/hubspot/expected/hubspot-addresses.json": addresses,
    "examples/hubspot/expected/hubspot-oslo-customers.json": oslo_customers,
    "examples/hubspot-rest/expected/contacts-addresses.json": addresses,
    "examples/hubspot-rest/expected/contacts-oslo-customers.json": oslo_customers,
    "examples/github/expected/github-portfolio.json": portfolio,
    "examples/write-back/expected/people-to-crm.json": people,
    "examples/crm/expected/sales-contacts.json": sales,
}


def text_of(entities):
    """As the reference's client compares them: sorted by `_id`, a row each."""
    rows = sorted(entities, key=lambda entity: entity["_id"])
    return "[\n" + ",\n".join("  " + json.dumps(row, ensure_ascii=False, sort_keys=True) for row in rows) + "\n]\n"


if __name__ == "__main__":
    for path, entities in FILES.items():
        (ROOT / path).write_text(text_of(entities()), "utf-8")
        print(f"{path}: {len(entities())} entities")
