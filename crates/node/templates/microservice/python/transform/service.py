"""A transform: answers entities with what they become.

    POST /transform    a JSON array of entities; the same entities, each with `initials`
"""

from protocol import serve, transform


def change(entities):
    """What some entities become; ask another system here, once for all of them where it can."""
    return [with_initials(entity) for entity in entities]


def with_initials(entity):
    """The entity with the first letters of its name. One that is deleted passes as it is."""
    name = entity.get("name")
    if entity.get("_deleted") or not isinstance(name, str):
        return entity
    return {**entity, "initials": "".join(word[0] for word in name.split())}


ROUTES = {"POST /transform": transform(change)}

if __name__ == "__main__":
    serve(ROUTES)
