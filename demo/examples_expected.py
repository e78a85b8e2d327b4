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


def customers():
    """The contacts of the sales CRM that are not of the staff."""
    pipe = json.loads((ROOT / "examples/crm/pipes/staff.conf.json").read_text("utf-8"))
    staff = {person["email"] for person in pipe["source"]["entities"]}
    found = [contact for contact in sales_contacts().values() if contact["email"] not in staff]
    return [{"_id": str(contact.pop("id")), **contact} for contact in found]


FILES = {
    "examples/hubspot/expected/hubspot-addresses.json": addresses,
    "examples/hubspot/expected/hubspot-oslo-customers.json": oslo_customers,
    "examples/hubspot-rest/expected/contacts-addresses.json": addresses,
    "examples/hubspot-rest/expected/contacts-oslo-customers.json": oslo_customers,
    "examples/github/expected/github-portfolio.json": portfolio,
    "examples/write-back/expected/people-to-crm.json": people,
    "examples/crm/expected/sales-contacts.json": customers,
}


def text_of(entities):
    """As the reference's client compares them: sorted by `_id`, a row each."""
    rows = sorted(entities, key=lambda entity: entity["_id"])
    return "[\n" + ",\n".join("  " + json.dumps(row, ensure_ascii=False, sort_keys=True) for row in rows) + "\n]\n"


if __name__ == "__main__":
    for path, entities in FILES.items():
        (ROOT / path).write_text(text_of(entities()), "utf-8")
        print(f"{path}: {len(entities())} entities")
