#!/usr/bin/env python3
"""Golden records in Pathway: three tables joined by a key, in memory.

    pathway_golden.py FOLDER

Reads what postgres.py reads, and prints the same figures: milliseconds from the moment at which the first source's
changes are handed over to the last golden record's change. Nothing is durable, so that there are no syncs.
"""

import json
import sys
import threading
import time
from pathlib import Path

import pathway as pw

SYSTEMS = ("hr", "crm", "erp")
PROPERTIES = ("name", "mail", "city", "active", "born")
FOLDER = Path(sys.argv[1])
ROUNDS = sorted(FOLDER.glob("changes-*.json"), key=lambda path: int(path.stem.split("-")[1]))


def schema(system):
    types = {"id": str, "ssn": str, "phone": str, **{f"{system}_{name}": bool if name == "active" else str for name in PROPERTIES}}
    columns = {name: pw.column_definition(dtype=kind, primary_key=name == "id") for name, kind in types.items()}
    return pw.schema_builder(columns, name=system)


class People(pw.io.python.ConnectorSubject):
    """What one system has, and its changes."""

    def __init__(self, system, golden):
        super().__init__()
        self.system, self.golden = system, golden

    # A person that comes again takes the place of what was known.
    @property
    def _deletions_enabled(self):
        return True

    def put(self, person):
        self.next(**{"id": person["_id"], **{name: value for name, value in person.items() if name != "_id"}})

    def run(self):
        with (FOLDER / f"{self.system}.json").open() as file:
            for line in file:
                self.put(json.loads(line.strip("[,]\n")))
        self.commit()
        for number, path in enumerate(ROUNDS):
            people = json.loads(path.read_text())[self.system]
            self.golden.await_turn(number, self.system)
            for person in people:
                self.put(person)
            self.commit()
            self.golden.handed_over(self.system)
        self.golden.await_turn(len(ROUNDS), None)


class Golden:
    """Counts what comes out, and says whose turn it is."""

    def __init__(self, everybody, changes):
        self.everybody, self.changes = everybody, changes
        self.lock = threading.Condition()
        self.round, self.turn = -1, 0
        self.whole, self.seen = set(), set()
        self.begun = time.monotonic()
        self.first, self.posted, self.full = 0.0, 0.0, None
        self.rounds = []

    def await_turn(self, number, system):
        """The systems write one after the other, in rounds that begin when the one before came out whole."""
        at = SYSTEMS.index(system) if system else 0
        with self.lock:
            self.lock.wait_for(lambda: (self.round, self.turn) == (number, at))

    def handed_over(self, system):
        with self.lock:
            now = time.monotonic()
            if system == SYSTEMS[0]:
                self.first = now
            self.posted = now
            self.turn += 1
            self.lock.notify_all()

    def came(self, row, is_addition):
        if not is_addition:
            return
        with self.lock:
            if self.round < 0:
                if all(row[f"{system}_name"] is not None for system in SYSTEMS):
                    self.whole.add(row["ssn"])
                if len(self.whole) == self.everybody:
                    self.full = time.monotonic() - self.begun
                    self.next_round()
                return
            mark = f"+47 turn {self.round}"
            if mark in (row["phone_hr"], row["phone_crm"], row["phone_erp"]):
                self.seen.add(row["ssn"])
            if len(self.seen) == self.changes[self.round]:
                self.rounds.append({"ms": (time.monotonic() - self.first) * 1000, "posts_ms": (self.posted - self.first) * 1000})
                self.next_round()

    def next_round(self):
        self.whole.clear()
        self.seen.clear()
        self.round, self.turn = self.round + 1, 0
        self.lock.notify_all()


def own_mb():
    """The most memory that this process had: what it maps of files is little."""
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")) >> 10


def main():
    everybody = sum(1 for _ in (FOLDER / "hr.json").open())
    changes = [sum(len(some) for some in json.loads(path.read_text()).values()) for path in ROUNDS]
    golden = Golden(everybody, changes)
    read = {system: pw.io.python.read(People(system, golden), schema=schema(system), autocommit_duration_ms=None) for system in SYSTEMS}
    hr, crm, erp = (read[system] for system in SYSTEMS)
    own = lambda table, system: {f"{system}_{name}": table[f"{system}_{name}"] for name in PROPERTIES}
    two = hr.join_left(crm, hr.ssn == crm.ssn).select(
        ssn=hr.ssn, phone_hr=hr.phone, phone_crm=crm.phone, **own(hr, "hr"), **own(crm, "crm"))
    three = two.join_left(erp, two.ssn == erp.ssn).select(
        ssn=two.ssn, phone_hr=two.phone_hr, phone_crm=two.phone_crm, phone_erp=erp.phone, **own(two, "hr"), **own(two, "crm"), **own(erp, "erp"))
    pw.io.subscribe(three, on_change=lambda key, row, time, is_addition: golden.came(row, is_addition))
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    print(json.dumps({"version": pw.__version__, "full_s": golden.full, "rounds": golden.rounds, "memory_mb": own_mb()}))


if __name__ == "__main__":
    main()
