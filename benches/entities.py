#!/usr/bin/env python3
"""The entities behind every published figure: 13 properties, about 321 bytes of JSON each.

    entities.py N [--seed S] [--shuffle] [--updated] > FILE

Writes one JSON array, an entity a line. The same N and seed give the same bytes. `--shuffle` hands
the ids out in random order; `--updated` gives every entity its place as `_updated`.
"""

import argparse
import json
import random
import sys

FIRST = "Ada Bjorn Carla Dag Eva Finn Gro Hans Ida Jon Kari Lars Mona Nils Ola Per".split()
LAST = "Hansen Johansen Olsen Larsen Andersen Pedersen Nilsen Kristiansen Jensen Karlsen".split()
CITY = "Oslo Bergen Trondheim Stavanger Drammen Fredrikstad Kristiansand Tromso".split()


def entity(i, draw):
    """Entity number i. The order of the draws is part of the data's definition."""
    first, last = draw.choice(FIRST), draw.choice(LAST)
    return {
        "_id": f"crm-person:{i}",
        "first_name": first,
        "last_name": last,
        "email": f"{first.lower()}.{last.lower()}{i}@example.com",
        "age": draw.randint(18, 90),
        "active": draw.random() < 0.8,
        "balance": round(draw.random() * 10000, 2),
        "city": draw.choice(CITY),
        "zip": f"{draw.randint(1000, 9999)}",
        "created": f"2024-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}T10:00:00Z",
        "tags": [draw.choice(CITY).lower(), "customer"],
        "company-ref": f"~:company:{draw.randint(0, 99999)}",
        "note": f"lorem ipsum dolor sit amet {i}",
    }


def entities(n, seed=42, shuffle=False):
    draw = random.Random(seed)
    made = (entity(i, draw) for i in range(n))
    if not shuffle:
        return made
    made = list(made)
    random.Random(seed + 2).shuffle(made)
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("n", type=int)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--shuffle", action="store_true")
    parser.add_argument("--updated", action="store_true")
    options = parser.parse_args()
    before = "["
    for place, one in enumerate(entities(options.n, options.seed, options.shuffle)):
        if options.updated:
            one["_updated"] = place
        sys.stdout.write(before + json.dumps(one, separators=(",", ":")))
        before = ",\n"
    sys.stdout.write("]\n" if options.n else "[]\n")


if __name__ == "__main__":
    main()
