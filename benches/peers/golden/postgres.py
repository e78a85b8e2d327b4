#!/usr/bin/env python3
"""Golden records in PostgreSQL, by hand-written incremental SQL.

    postgres.py FOLDER

FOLDER has `hr.json`, `crm.json`, `erp.json`, and `changes-0.json` and so on, each with the changed people of every
system. A server of its own runs on loopback for as long as this does. Prints one line of JSON: the seconds of the
first build; for every round the milliseconds from the first durable write of a source to the durable golden records,
those of them that the other writes took, and syncs; memory in MB.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

SYSTEMS = ("hr", "crm", "erp")
PROPERTIES = ("name", "mail", "city", "active", "born")
TYPES = {"active": "boolean"}
# Everything that is looked up stays in memory; all else is as it comes.
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "4GB", "listen_addresses": "127.0.0.1"}


class Server:
    """A server in a folder of its own."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="tahini-postgres-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        # It refuses to run as root.
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user)
        self.bin = Path(subprocess.run(["pg_config", "--bindir"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
        self.run(self.bin / "initdb", "--auth=trust", "--username=bench", "--encoding=UTF8", "--locale=C")
        options = " ".join(f"-c {name}={value}" for name, value in {**SETTINGS, "port": self.port, "unix_socket_directories": self.folder}.items())
        self.run(self.bin / "pg_ctl", "-w", "-o", options, "-l", self.folder / "log", "start")

    def run(self, *command):
        environment = {**os.environ, "PGDATA": str(self.folder / "data")}
        subprocess.run([str(part) for part in command], check=True, cwd="/", env=environment, user=self.user, stdout=subprocess.DEVNULL)

    def connect(self):
        return psycopg.connect(f"host=127.0.0.1 port={self.port} user=bench dbname=postgres", autocommit=True)

    def memory_mb(self):
        """Own memory of all its processes, and what they share."""
        main = int((self.folder / "data/postmaster.pid").read_text().split()[0])
        own, shared = 0, 0
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            except OSError:
                continue
            if main in (int(status.parent.name), int(fields["PPid"])):
                own += int(fields.get("RssAnon", "0").split()[0])
                shared = max(shared, int(fields.get("RssShmem", "0").split()[0]))
        return own >> 10, shared >> 10

    def stop(self):
        self.run(self.bin / "pg_ctl", "-w", "-m", "fast", "stop")
        shutil.rmtree(self.folder)


def columns(system):
    return [f"{system}_{name}" for name in PROPERTIES]


def schema():
    for system in SYSTEMS:
        own = ", ".join(f"{system}_{name} {TYPES.get(name, 'text')}" for name in PROPERTIES)
        yield f"CREATE SEQUENCE {system}_seq"
        yield f"CREATE TABLE {system} (id text NOT NULL, seq bigint NOT NULL DEFAULT nextval('{system}_seq'), ssn text NOT NULL, phone text, {own})"


def indexes():
    for system in SYSTEMS:
        yield f"ALTER TABLE {system} ADD PRIMARY KEY (id)"
        yield f"CREATE INDEX ON {system} (ssn)"
        yield f"CREATE INDEX ON {system} (seq)"


def merged(keys):
    """What the systems have of these people, put together as the strategy `compact` does."""
    names = [name for system in SYSTEMS for name in columns(system)]
    return f"""
        SELECT ssn, coalesce(hr.id, crm.id, erp.id) AS id, array_remove(ARRAY[hr.id, crm.id, erp.id], NULL) AS ids,
            (SELECT array_agg(DISTINCT p ORDER BY p) FROM unnest(ARRAY[hr.phone, crm.phone, erp.phone]) AS p WHERE p IS NOT NULL) AS phone,
            {", ".join(names)}
        FROM {keys} LEFT JOIN hr USING (ssn) LEFT JOIN crm USING (ssn) LEFT JOIN erp USING (ssn)"""


def follow():
    """Brings the golden records up to the sources: everybody who changed at or behind the places given."""
    touched = " UNION ".join(f"SELECT ssn FROM {system} WHERE seq >= %({system})s" for system in SYSTEMS)
    names = ["id", "ids", "phone", *(name for system in SYSTEMS for name in columns(system))]
    sets = ", ".join(f"{name} = excluded.{name}" for name in names)
    old, new = (", ".join(f"{row}.{name}" for name in names) for row in ("golden", "excluded"))
    return f"""
        WITH touched AS ({touched})
        INSERT INTO golden {merged("touched")}
        ON CONFLICT (ssn) DO UPDATE SET {sets} WHERE ({old}) IS DISTINCT FROM ({new})"""


def update(system):
    fields = ["phone", *columns(system)]
    sets = ", ".join(f"{name} = changed.{name}" for name in fields)
    types = ", ".join(f"{name} {TYPES.get(name.removeprefix(f'{system}_'), 'text')}" for name in ["id", "ssn", *fields])
    return f"""
        UPDATE {system} SET seq = nextval('{system}_seq'), ssn = changed.ssn, {sets}
        FROM json_to_recordset(%s::json) AS changed({types}) WHERE {system}.id = changed.id"""


def rows_of(path):
    """People, a line each between the brackets, so that memory does not hold all of them."""
    with path.open() as file:
        for line in file:
            yield json.loads(line.strip("[,]\n"))


def build(connection, folder):
    for statement in schema():
        connection.execute(statement)
    for system in SYSTEMS:
        names = ["ssn", "phone", *columns(system)]
        with connection.cursor() as cursor, cursor.copy(f"COPY {system} (id, {', '.join(names)}) FROM STDIN") as copy:
            for person in rows_of(folder / f"{system}.json"):
                copy.write_row([person["_id"], *(person[name] for name in names)])
    for statement in indexes():
        connection.execute(statement)
    connection.execute("VACUUM ANALYZE")
    begun = time.monotonic()
    everybody = "(" + " UNION ".join(f"SELECT ssn FROM {system}" for system in SYSTEMS) + ") AS everybody"
    connection.execute(f"CREATE TABLE golden AS {merged(everybody)}")
    connection.execute("ALTER TABLE golden ADD PRIMARY KEY (ssn)")
    seconds = time.monotonic() - begun
    connection.execute("VACUUM ANALYZE golden")
    connection.execute("CHECKPOINT")
    return seconds


def syncs(connection):
    # A backend tells of its own when it is idle.
    connection.execute("SELECT pg_stat_force_next_flush()")
    time.sleep(0.2)
    connection.execute("SELECT pg_stat_clear_snapshot()")
    return connection.execute("SELECT wal_sync FROM pg_stat_wal").fetchone()[0]


def round_of(connection, changes, places):
    """One transaction a source, as three posters do, and one for the golden records."""
    bodies = {system: json.dumps([{**one, "id": one["_id"]} for one in changes[system]]) for system in SYSTEMS}
    places |= {system: connection.execute(f"SELECT last_value + 1 FROM {system}_seq").fetchone()[0] for system in SYSTEMS}
    before = syncs(connection)
    first, *others = SYSTEMS
    connection.execute(update(first), [bodies[first]])
    begun = time.monotonic()
    for system in others:
        connection.execute(update(system), [bodies[system]])
    posted = time.monotonic()
    changed = connection.execute(follow(), places).rowcount
    ended = time.monotonic()
    expected = sum(len(some) for some in changes.values())
    if changed != expected:
        raise SystemExit(f"expected {expected} golden records to change, found {changed}")
    # That of the first write is not counted.
    return {"ms": (ended - begun) * 1000, "posts_ms": (posted - begun) * 1000, "syncs": syncs(connection) - before - 1}


def main():
    folder = Path(sys.argv[1])
    server = Server()
    try:
        with server.connect() as connection:
            found = {"version": connection.execute("SHOW server_version").fetchone()[0].split()[0], "full_s": build(connection, folder), "rounds": []}
            rounds = sorted(folder.glob("changes-*.json"), key=lambda path: int(path.stem.split("-")[1]))
            for path in rounds:
                found["rounds"].append(round_of(connection, json.loads(path.read_text()), {}))
            found["memory_mb"], found["shared_mb"] = server.memory_mb()
    finally:
        server.stop()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
