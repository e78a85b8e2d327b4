"""A source and a sink: a system's records as entities, and entities written to it.

    GET  /entities                     every record
    GET  /entities?since=X             those that were changed after X
    GET  /entities?since=X&limit=N     the first N of them
    POST /entities                     a JSON array of entities; 200 when all of it is written
    POST /unchanged                    the same entities, when nobody has changed their records meanwhile; else 400

A pipe that writes asks /unchanged first. An entity says in `expected` which change of its record was collected last, 0
for none. Where the system holds another by now, the entity is refused: the node sets it aside, and tries it again in
later runs, when that change has been collected (optimistic locking).
"""

import os

from protocol import Refused, pull, push, serve, transform
from records import Records

records = Records(os.environ.get("RECORDS", "records.ndjson"))


def changes(since):
    """What was changed after `since`, oldest change first. It is the _updated of an entity that we sent."""
    try:
        since = None if since is None else int(since)
    except ValueError:
        raise Refused(f"since: expected a number, found {since!r}") from None
    for record in records.changes(since):
        yield entity_of(record)


def entity_of(record):
    """A record as an entity: _id says whose it is, _updated when it changed, _deleted that it is gone."""
    entity = {"_id": record["id"], "_updated": record["changed"]}
    if record.get("deleted"):
        return {**entity, "_deleted": True}
    return {**entity, **record}


def take(entities):
    """Writes some entities, in their order. An exception refuses them all: the node asks again, or one by one."""
    records.write([record_of(entity) for entity in entities])


def record_of(entity):
    """An entity as a record. What begins with an underscore is the node's and not the system's."""
    if entity.get("_deleted"):
        return {"id": entity["_id"], "deleted": True}
    own = {name: value for name, value in entity.items() if not name.startswith("_")}
    return {**own, "id": entity["_id"]}


def unchanged(entities):
    """The entities without `expected`; an API that knows conditional writes would be told of it in `take` instead."""
    known = records.find({entity["_id"] for entity in entities})
    for entity in entities:
        expected, found = entity.pop("expected", 0), known.get(entity["_id"], {}).get("changed", 0)
        if expected != found:
            raise Refused(f"{entity['_id']}: expected change {expected} in the system, found {found}: somebody was faster")
    return entities


ROUTES = {
    "GET /entities": pull(changes),
    "POST /entities": push(take),
    "POST /unchanged": transform(unchanged),
}

if __name__ == "__main__":
    serve(ROUTES)
