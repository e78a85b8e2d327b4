"""A sink: writes entities to a system.

    POST /entities    a JSON array of entities; 200 when all of it is written

Writing is by id, so that a batch that comes twice does no harm: the node sends again what it got no answer for.
"""

import os

from protocol import push, serve
from records import Records

records = Records(os.environ.get("RECORDS", "records.ndjson"))


def take(entities):
    """Writes some entities, in their order. An exception refuses them all: the node asks again, or one by one."""
    records.write([record_of(entity) for entity in entities])


def record_of(entity):
    """An entity as a record. What begins with an underscore is the node's and not the system's."""
    if entity.get("_deleted"):
        return {"id": entity["_id"], "deleted": True}
    own = {name: value for name, value in entity.items() if not name.startswith("_")}
    return {**own, "id": entity["_id"]}


ROUTES = {"POST /entities": push(take)}

if __name__ == "__main__":
    serve(ROUTES)
