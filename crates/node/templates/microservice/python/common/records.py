"""The system that the service connects to: put the calls of its API in here.

So that everything works before there is one, a file plays its part: a log of changes, a JSON object on each line. `id`
says which record it is, `changed` is a number that grows with every change, and `deleted` marks one that is gone. The
last line of an id holds.
"""

import json
import os
import threading


class Records:
    def __init__(self, path):
        self.path = path
        self.lock = threading.Lock()

    def changes(self, since=None):
        """Every change after the number `since`, oldest first, one at a time; a real API is asked page by page."""
        if not os.path.exists(self.path):
            return
        with open(self.path, encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                if since is None or record["changed"] > since:
                    yield record

    def find(self, ids):
        """The records of these ids as they are now, by id; without those that are gone."""
        found = {}
        for record in self.changes():
            if record["id"] in ids:
                found[record["id"]] = record
        return {identity: record for identity, record in found.items() if not record.get("deleted")}

    def write(self, records):
        """Writes records by id. One that is so already is left alone: writing it would be a change."""
        with self.lock:
            known = self.find({record["id"] for record in records})
            for record in records:
                before = known.get(record["id"], {"deleted": True})
                if before.get("deleted") and record.get("deleted"):
                    continue
                if {**before, "changed": 0} == {**record, "changed": 0}:
                    continue
                self.append(record)
                known[record["id"]] = record

    def append(self, record):
        record["changed"] = self.last() + 1
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def last(self):
        """The number of the last change; 0 before the first."""
        if not os.path.exists(self.path):
            return 0
        with open(self.path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            size = 4096
            while True:
                file.seek(max(end - size, 0))
                lines = file.read().splitlines()
                if len(lines) > 1 or size >= end:
                    return json.loads(lines[-1])["changed"] if lines else 0
                size *= 2
