"""Every service that `tahini microservice new` writes: its own tests, its pipes with the real node, what `tahini
microservice check` says of it, and its memory while a large stream goes through.

Needs the environment variable TAHINI, the path of a built node, and python3, node and cargo.
"""

import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TAHINI = Path(os.environ["TAHINI"]).absolute()
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute() / "microservices"
OWN_TESTS = {"python": ["python3", "-m", "unittest"], "node": ["node", "--test"], "rust": ["cargo", "test", "--offline", "--quiet"]}
LISTENS = re.compile(r"listening on (?:port |127\.0\.0\.1:)(\d+)")

# What one large stream holds, and the memory that a container has unless it is given more.
LARGE_BYTES = 200_000_000
CONTAINER_BYTES = 128 * 1024 * 1024
ENTITY_BYTES = 2_000


def called(command, cwd, **environment):
    # Node's test runner tells its children by this variable; a service under test is none of them.
    env = {name: value for name, value in os.environ.items() if name != "NODE_TEST_CONTEXT"}
    env.update(CARGO_TARGET_DIR=str(TARGET), NO_PROXY="*", **environment)
    return subprocess.run([str(word) for word in command], cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)


class Running:
    """The service by itself, on a port that the system chose."""

    def __init__(self, service, command, **environment):
        self.process = subprocess.Popen(
            command, cwd=service, env={**os.environ, "PORT": "0", "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        line = self.process.stdout.readline()
        found = LISTENS.search(line)
        if not found:
            self.stop()
            raise AssertionError(f"expected a line that says the port, found {line!r}")
        self.port = int(found[1])

    def peak_bytes(self):
        """The most memory that it ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)[1]) * 1024

    def stop(self):
        self.process.terminate()
        code = self.process.wait(120)
        self.process.stdout.close()
        return code


class ServiceCase(unittest.TestCase):
    """A service of one language and one kind, newly written."""

    lang, kind = None, None

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="tahini-microservice-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.name = f"our-{cls.lang}"
        done = called([TAHINI, "microservice", "new", cls.name, "--lang", cls.lang, "--kind", cls.kind], cls.folder)
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        cls.project = cls.folder / cls.name
        cls.service = cls.project / "services" / cls.name
        if cls.lang == "rust":
            cls.build()

    @classmethod
    def build(cls):
        """With the crates that the node itself is built with: none is fetched."""
        shutil.copy(ROOT / "Cargo.lock", cls.service)
        done = called(["cargo", "build", "--offline", "--quiet"], cls.service)
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        released = cls.service / "target/release"
        released.mkdir(parents=True)
        shutil.copy(TARGET / "debug" / cls.name, released)

    def command(self):
        config = json.loads((self.project / f"systems/{self.name}.conf.json").read_text())
        return config["process"]["command"]

    def start(self, **environment):
        running = Running(self.service, self.command(), **environment)
        self.addCleanup(running.stop)
        return running

    def run_all(self, *options):
        """Runs the project; what became of each pipe, by the end of its name."""
        done = called([TAHINI, "run", self.project, "--data", self.data, "--json", *options], self.folder)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        runs = {}
        for run in json.loads(done.stdout)["runs"]:
            name = run["pipe"].removeprefix(f"{self.name}-")
            counts = [run[name] for name in ("entities_read", "changed", "deleted", "failed")]
            runs.setdefault(name, []).append((run["sync_type"], *counts))
        return runs

    def entities(self, dataset):
        done = called([TAHINI, "entities", f"{self.name}-{dataset}", "--data", self.data], self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        return {entity["_id"]: entity for entity in map(json.loads, done.stdout.splitlines())}

    def records(self):
        return [json.loads(line) for line in (self.service / "records.ndjson").read_text().splitlines()]

    def setUp(self):
        data = tempfile.TemporaryDirectory(prefix="tahini-data-")
        self.addCleanup(data.cleanup)
        self.data = data.name
        # Each test begins with the records that were written.
        records = self.service / "records.ndjson"
        if records.exists():
            self.addCleanup(records.write_text, records.read_text())


class Shared:
    """What is asked of all of them."""

    def test_its_own_tests(self):
        done = called(OWN_TESTS[self.lang], self.service)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        said = done.stdout + done.stderr
        ran = re.search(r"Ran (\d+) tests|# tests (\d+)|ℹ tests (\d+)|(\d+) passed", said)
        self.assertGreaterEqual(int(next(filter(None, ran.groups()))), 4, said)

    def test_the_check_finds_nothing_wrong(self):
        running = self.start()
        path = "transform" if self.kind == "transform" else "entities"
        done = called([TAHINI, "microservice", "check", f"http://127.0.0.1:{running.port}/{path}", "--kind", self.kind, "--json"], self.folder)
        report = json.loads(done.stdout)
        self.assertEqual((done.returncode, report["wrong"], report["warnings"]), (0, 0, 0), json.dumps(report, indent=1))

    def test_it_ends_when_it_is_asked_to(self):
        self.assertEqual(Running(self.service, self.command()).stop(), 0)


class SourceCase(Shared, ServiceCase):
    kind = "source"

    def test_all_then_none_then_what_changed(self):
        self.assertEqual(self.run_all()["collect"], [("full", 4, 4, 1, 0)])
        self.assertEqual(self.run_all()["collect"], [("incremental", 0, 0, 0, 0)])
        with open(self.service / "records.ndjson", "a") as file:
            file.write('{"id": "2", "changed": 5, "name": "Rear Admiral Hopper"}\n')
        self.assertEqual(self.run_all()["collect"], [("incremental", 1, 1, 0, 0)])
        held = self.entities("collect")
        self.assertEqual((held["2"]["name"], held["2"]["_updated"]), ("Rear Admiral Hopper", 4))
        self.assertTrue(held["3"]["_deleted"] if "3" in held else True)

    def start_with(self, size):
        """The service, with records of so many bytes behind it."""
        large = self.folder / "large.ndjson"
        text = "x" * ENTITY_BYTES
        with large.open("w") as file:
            for number in range(size // ENTITY_BYTES):
                file.write(f'{{"id": "{number}", "changed": {number}, "text": "{text}"}}\n')
        self.addCleanup(large.unlink)
        return self.start(RECORDS=str(large))

    def test_the_check_sees_it_stream(self):
        running = self.start_with(3_000_000)
        done = called([TAHINI, "microservice", "check", f"http://127.0.0.1:{running.port}/entities", "--json"], self.folder)
        verdicts = {row["check"]: row["verdict"] for row in json.loads(done.stdout)["findings"]}
        self.assertEqual((done.returncode, verdicts["streams"], verdicts["hang-up"]), (0, "ok", "ok"), done.stdout)

    def test_a_large_stream_goes_out_in_little_memory(self):
        running = self.start_with(LARGE_BYTES)
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=120)
        self.addCleanup(connection.close)
        connection.request("GET", "/entities")
        size = 0
        with connection.getresponse() as answer:
            while chunk := answer.read(1 << 20):
                size += len(chunk)
        self.assertGreater(size, LARGE_BYTES)
        self.assertLess(running.peak_bytes(), CONTAINER_BYTES)


def large_body():
    """A JSON array in pieces that end anywhere, and the number of its entities."""
    text = "y" * ENTITY_BYTES
    yield b"["
    for number in range(LARGE_BYTES // ENTITY_BYTES):
        yield f'{"," if number else ""}{{"_id": "{number}", "name": "A B", "text": "{text}"}}'.encode()
    yield b"]"


class SinkCase(Shared, ServiceCase):
    kind = "sink"

    def test_all_then_none_then_a_deletion(self):
        self.assertEqual(self.run_all()["share"], [("full", 3, 3, 0, 0)])
        self.assertEqual(self.run_all()["share"], [("incremental", 0, 0, 0, 0)])
        self.assertEqual([record["id"] for record in self.records()], ["1", "2", "3"])
        pipe = self.project / f"pipes/{self.name}-people.conf.json"
        before = pipe.read_text()
        self.addCleanup(pipe.write_text, before)
        config = json.loads(before)
        del config["source"]["entities"][1]
        pipe.write_text(json.dumps(config))
        self.assertEqual(self.run_all()["share"], [("incremental", 1, 1, 1, 0)])
        self.assertEqual(self.records()[3:], [{"id": "2", "deleted": True, "changed": 4}])

    def test_a_large_stream_comes_in_in_little_memory(self):
        running = self.start(RECORDS="/dev/null")
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=120)
        self.addCleanup(connection.close)
        connection.request("POST", "/entities", large_body(), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        with connection.getresponse() as answer:
            self.assertEqual(answer.status, 200)
        self.assertLess(running.peak_bytes(), CONTAINER_BYTES)


class TransformCase(Shared, ServiceCase):
    kind = "transform"

    def test_what_comes_is_there_with_its_initials(self):
        self.assertEqual(self.run_all()["transform"], [("full", 3, 3, 0, 0)])
        held = self.entities("transform")
        self.assertEqual({key: entity["initials"] for key, entity in held.items()}, {"1": "AL", "2": "GH", "3": "OD"})

    def test_a_large_stream_goes_through_in_little_memory(self):
        running = self.start()
        # What goes in is sent by a process of its own, since what comes out must be read meanwhile.
        sent = self.folder / "body.json"
        with sent.open("wb") as file:
            file.writelines(large_body())
        self.addCleanup(sent.unlink)
        url = f"http://127.0.0.1:{running.port}/transform"
        curl = subprocess.Popen(["curl", "-sS", "--noproxy", "*", "-T", sent, "-X", "POST", url], stdout=subprocess.PIPE)
        size, tail = 0, b""
        while chunk := curl.stdout.read(1 << 20):
            size, tail = size + len(chunk), chunk[-40:]
        curl.stdout.close()
        self.assertEqual(curl.wait(120), 0)
        self.assertGreater(size, LARGE_BYTES)
        self.assertTrue(tail.endswith(b'"initials":"AB"}]'), tail)
        self.assertLess(running.peak_bytes(), CONTAINER_BYTES)


class SourceAndSinkCase(Shared, ServiceCase):
    kind = "source+sink"

    def name_of(self, identity):
        """What the system outside holds."""
        return [record for record in self.records() if record["id"] == identity][-1].get("name")

    def test_what_is_written_comes_back_and_then_there_is_rest(self):
        runs = self.run_all()
        self.assertEqual((runs["collect"][0], runs["share"][0]), (("full", 4, 4, 1, 0), ("full", 2, 2, 0, 0)))
        self.assertEqual(self.name_of("1"), "Ada, Countess of Lovelace")
        # Our own writes are collected; what was written is so already, and is not written again.
        self.assertEqual(self.run_all()["collect"], [("incremental", 2, 2, 0, 0)])
        count = len(self.records())
        self.assertEqual(self.run_all()["collect"], [("incremental", 0, 0, 0, 0)])
        self.assertEqual(len(self.records()), count)

    def test_nobody_elses_change_is_overwritten(self):
        """Optimistic locking: a change that was not collected yet comes first."""
        self.run_all()
        self.run_all()
        last = max(record["changed"] for record in self.records())
        with open(self.service / "records.ndjson", "a") as file:
            file.write(json.dumps({"id": "1", "changed": last + 1, "name": "Ada King", "title": "Lady"}) + "\n")
        pipe = self.project / f"pipes/{self.name}-changes.conf.json"
        before = pipe.read_text()
        self.addCleanup(pipe.write_text, before)
        pipe.write_text(before.replace("Ada, Countess of Lovelace", "A. Lovelace"))
        only = ["--pipe", f"{self.name}-changes", "--pipe", f"{self.name}-share"]
        self.run_all(*only)
        self.assertEqual(self.name_of("1"), "Ada King", "somebody's change is still there")
        # Once it is collected, the entity comes again by itself, and is written.
        self.run_all()
        self.run_all()
        self.assertEqual(self.name_of("1"), "A. Lovelace")
        self.assertEqual(self.entities("collect")["1"]["name"], "A. Lovelace")


def load_tests(loader, *_):
    """Each case, in each language."""
    suite = unittest.TestSuite()
    for lang in OWN_TESTS:
        for case in (SourceCase, SinkCase, TransformCase, SourceAndSinkCase):
            named = type(f"{lang}_{case.__name__}", (case,), {"lang": lang})
            suite.addTests(loader.loadTestsFromTestCase(named))
    return suite


if __name__ == "__main__":
    unittest.main()
