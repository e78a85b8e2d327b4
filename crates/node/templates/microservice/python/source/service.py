"""A source: the records of a system as a stream of entities.

    GET /entities                     every record
    GET /entities?since=X             those that were changed after X
    GET /entities?since=X&limit=N     the first N of them
"""

import os

from protocol import Refused, pull, serve
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


ROUTES = {"GET /entities": pull(changes)}

if __name__ == "__main__":
    serve(ROUTES)
