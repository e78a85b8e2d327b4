"""The entities of every figure: 13 properties, about 321 bytes of JSON each, the same for a seed."""

import json
import random

FIRST = "Ada Bjorn Carla Dag Eva Finn Gro Hans Ida Jon Kari Lars Mona Nils Ola Per".split()
LAST = "Hansen Johansen Olsen Larsen Andersen Pedersen Nilsen Kristiansen Jensen Karlsen".split()
CITY = "Oslo Bergen Trondheim Stavanger Drammen Fredrikstad Kristiansand Tromso".split()


def entities(count, seed=42, updated=False):
    """Yields dictionaries; with `updated`, each has its position as `_updated`."""
    draw = random.Random(seed)
    for i in range(count):
        first, last = draw.choice(FIRST), draw.choice(LAST)
        entity = {
            "_id": f"crm-person:{i}", "first_name": first, "last_name": last,
            "email": f"{first.lower()}.{last.lower()}{i}@example.com",
            "age": draw.randint(18, 90), "active": draw.random() < 0.8,
            "balance": round(draw.random() * 10000, 2),
            "city": draw.choice(CITY), "zip": f"{draw.randint(1000, 9999)}",
            "created": f"2024-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}T10:00:00Z",
            "tags": [draw.choice(CITY).lower(), "customer"],
            "company-ref": f"~:company:{draw.randint(0, 99999)}",
            "note": "lorem ipsum dolor sit amet " + str(i),
        }
        if updated:
            entity["_updated"] = i
        yield entity


def write_array(path, count, seed=42, updated=False):
    """Writes them as one JSON array."""
    with open(path, "w") as out:
        out.write("[")
        for at, entity in enumerate(entities(count, seed, updated)):
            out.write((",\n" if at else "") + json.dumps(entity, separators=(",", ":")))
        out.write("]\n")
