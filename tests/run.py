#!/usr/bin/env python3
"""Runs what `make check` and `make test` promise, step after step, and closes with one line:
`N passed, N failed, N skipped`, summed over every runner.

    tests/run.py check | test [STEP…]

A step that counts tests and counts none has failed. A test that lacks something it needs prints a
line `SKIP: what is missing`; with CI=true that is a failure.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
CI = os.environ.get("CI") == "true"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
# One profile for lints, tests and demo: everything is compiled once.
PROFILE = "ci"
TAHINI = TARGET / PROFILE / "tahini"
# Nextest's own folder, wherever cargo builds.
JUNIT = ROOT / "target/nextest/default/junit.xml"
ROOT_USER = os.geteuid() == 0
NEXTEST = shutil.which("cargo-nextest") is not None
VENV = ROOT / ".cache/venv/bin"
MINUTE = 60
ENGINE_TESTS = "package(tahini-node) & kind(test) & test(/docker::/)"


@dataclass
class Count:
    passed: int = 0
    failed: int = 0
    # Every test that was not run, and of these the ones that said `SKIP:` for want of something.
    skipped: int = 0
    wanting: int = 0

    def __iadd__(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.wanting += other.wanting
        return self


@dataclass
class Step:
    name: str
    command: list
    # Reads the counts out of what the command printed; without one the step is itself one test.
    count: object = None
    # Without its result nothing that follows can mean anything.
    essential: bool = False
    limit: int = 20 * MINUTE
    env: dict = field(default_factory=dict)
    # What the step prints is for its counter, not for a person.
    quiet: bool = False


# ---- counters: the text that a runner printed → Count -------------------------------------------


def unittest_count(text):
    total = Count()
    for ran, verdict in re.findall(r"^Ran (\d+) tests? in .*\n\n(OK.*|FAILED.*)$", text, re.M):
        numbers = {name: int(n) for name, n in re.findall(r"(failures|errors|skipped|unexpected successes)=(\d+)", verdict)}
        skipped = numbers.pop("skipped", 0)
        failed = sum(numbers.values())
        total += Count(int(ran) - skipped - failed, failed, skipped)
    return total


def node_test_count(text):
    number = lambda name: sum(map(int, re.findall(rf"^(?:#|ℹ) {name} (\d+)$", text, re.M)))
    return Count(number("pass"), number("fail") + number("cancelled"), number("skipped") + number("todo"))


def libtest_count(text):
    total = Count()
    for passed, failed, ignored in re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", text, re.M):
        total += Count(int(passed), int(failed), int(ignored))
    return total


def nextest_count(text):
    """From the summary line; tests that said SKIP: and passed are skipped ones (see the junit file)."""
    found = re.search(r"^\s*Summary \[.*?\] +(?:\d+/)?\d+ tests? run: (\d+) passed(?: \([^)]*\))?(.*)$", text, re.M)
    if not found:
        return Count()
    numbers = {name: int(n) for n, name in re.findall(r"(\d+) (failed|exec failed|timed out|skipped)", found[2])}
    numbers.pop("skipped", None)  # filtered out by name: another step's
    count = Count(int(found[1]), sum(numbers.values()), 0)
    for case in ElementTree.parse(JUNIT).iter("testcase"):
        said = "\n".join(out.text or "" for kind in ("system-out", "system-err") for out in case.iter(kind))
        if case.find("failure") is None and (skip := re.search(r"^SKIP:.*$", said, re.M)):
            print(f"  {skip[0]}  ({case.get('name')})")
            count += Count(passed=-1, skipped=1, wanting=1)
    return count


def project_count(text):
    """`tahini test --json`; prints what a person wants to see of it."""
    count = Count()
    for start in re.finditer(r"^\{", text, re.M):
        try:
            report, _ = json.JSONDecoder().raw_decode(text, start.start())
        except ValueError:
            continue
        for test in report.get("tests", []):
            print(f"  {'ok  ' if test['passed'] else 'FAIL'} {test['name']}{'' if test['passed'] else ': ' + (test.get('message') or '')}")
            count += Count(int(test["passed"]), int(not test["passed"]))
    return count


# ---- steps --------------------------------------------------------------------------------------


def cargo_tests(*more, filter="all()", **step):
    """The Rust tests that match: with nextest where it is installed, else with cargo's own runner."""
    if NEXTEST:
        command = ["cargo", "nextest", "run", "--cargo-profile", PROFILE, "--workspace", "-E", filter, *more]
        return Step(command=command, count=nextest_count, **step)
    names = {ENGINE_TESTS: ["-p", "tahini-node", "--test", "it", "docker::"], f"not ({ENGINE_TESTS})": ["--workspace", "--", "--skip", "docker::"]}
    command = ["cargo", "test", "--no-fail-fast", "--profile", PROFILE, *more, *names.get(filter, ["--workspace"])]
    return Step(command=command, count=libtest_count, **step)


FORMAT = Step("format", ["cargo", "fmt", "--all", "--check"])
LINTS = Step("lints", ["cargo", "clippy", "--profile", PROFILE, "--workspace", "--all-targets", "--", "-D", "warnings"], limit=30 * MINUTE)
ARROWS = Step("arrows, borders, sizes", [sys.executable, "tests/arrows/check.py"])
LICENCES = Step("licences and sources", [sys.executable, "tests/arrows/licences.py"])
ARROWS_TESTED = Step("the arrow test's own tests", [sys.executable, "-m", "unittest", "discover", "-s", "tests/arrows"], unittest_count)
RUNNER_TESTED = Step("this runner's own tests", [sys.executable, "-m", "unittest", "discover", "-b", "-s", "tests", "-p", "test_run.py"], unittest_count)
SOAK_TESTED = Step("the soak's own tests", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_soak.py"], unittest_count)


def check_steps():
    unit = ["--lib", "--bins"]
    return [FORMAT, ARROWS, LICENCES, ARROWS_TESTED, RUNNER_TESTED, SOAK_TESTED, LINTS, cargo_tests(*unit, name="unit tests")]


def project_steps():
    """`tahini test` on every example; the outside APIs that their services call are stand-ins."""
    projects = sorted({p.parent.parent.name for p in (ROOT / "examples").glob("*/expected/*.test.json")})
    for name in projects:
        command = [str(TAHINI), "test", f"examples/{name}", "--json"]
        if (ROOT / f"examples/{name}/secrets.json").exists():
            command += ["--secrets", f"examples/{name}/secrets.json"]
        yield Step(f"project {name}", [sys.executable, "tests/with-standins.py", *command], project_count, limit=5 * MINUTE, quiet=True)


def test_steps():
    # Building the tests builds the node with them; built alone, it would share fewer dependencies.
    builder = ["nextest", "run", "--cargo-profile"] if NEXTEST else ["test", "--profile"]
    build = Step("build", ["cargo", *builder, PROFILE, "--workspace", "--no-run"], essential=True, limit=60 * MINUTE)
    tests = cargo_tests(name="Rust tests", filter=f"not ({ENGINE_TESTS})", limit=40 * MINUTE)
    engine = Step("container tests", ["echo", "SKIP: the container engine of the tests needs root"])
    if ROOT_USER:
        engine = cargo_tests("--offline", name="container tests", filter=ENGINE_TESTS, limit=15 * MINUTE)
        engine.command = ["tests/rig/with-engine.sh", *engine.command]
    with_node = {"TAHINI": str(TAHINI), "PATH": f"{VENV}:{os.environ['PATH']}"}
    no_engine = ["echo", "SKIP: the container engine of the tests needs root"]
    contained = [Step("the guide, in containers", no_engine), Step("demo, in containers", no_engine)]
    if ROOT_USER:
        guide = [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_guide.py", "-k", "WithAnEngine"]
        contained[0] = Step("the guide, in containers", ["tests/rig/with-engine.sh", *guide], unittest_count, env=with_node, limit=10 * MINUTE)
        demo = ["make", "--no-print-directory", "demo", "ONCE=1", "DOCKER=1", f"TAHINI={TAHINI}"]
        contained[1] = Step("demo, in containers", ["tests/rig/with-engine.sh", *demo], limit=10 * MINUTE)
    browser = [str(p.relative_to(ROOT)) for p in sorted((ROOT / "tests/browser").glob("*.test.mjs"))]
    return [
        FORMAT, ARROWS, LICENCES, ARROWS_TESTED, RUNNER_TESTED, SOAK_TESTED, LINTS, build, tests, WAIT_FOR_RIG,
        Step("stand-ins, services, demo", [str(VENV / "python"), "-m", "unittest", "discover", "-s", "demo/tests"], unittest_count, env=with_node),
        Step("the JSON schemas", [str(VENV / "python"), "-m", "unittest", "discover", "-s", "tests", "-p", "test_schema.py"], unittest_count, env=with_node),
        Step("reference vectors through the binary", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_vectors.py"], unittest_count, env=with_node),
        Step("limits through the binary", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_limits.py"], unittest_count, env=with_node, limit=20 * MINUTE),
        Step("CSV, XML and workbooks through the binary", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_formats.py"], unittest_count, env=with_node, limit=20 * MINUTE),
        Step("the README's first pipe", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_readme.py"], unittest_count, env=with_node),
        Step("services that are newly written", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_microservices.py"], unittest_count, env=with_node, limit=20 * MINUTE),
        Step("the guide to microservices", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_guide.py", "-k", "InTurn"], unittest_count, env=with_node),
        Step("connectors", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_connectors.py"], unittest_count, env=with_node, limit=20 * MINUTE),
        Step("full and damaged disks", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_disk.py"], unittest_count, env=with_node),
        Step("rescans and kills", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_rescans.py"], unittest_count, env=with_node),
        Step("large entities", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_large.py"], unittest_count, env=with_node),
        Step("merging through the binary", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_merge.py"], unittest_count, env=with_node),
        Step("joins that stay true", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_joins.py"], unittest_count, env=with_node),
        Step("flows that feed themselves", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_loops.py"], unittest_count, env=with_node),
        Step("lineage, and why pipes are idle", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_lineage.py"], unittest_count, env=with_node),
        Step("backup and restore", [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-p", "test_backup.py"], unittest_count, env=with_node),
        Step("soak, the short one", [sys.executable, "tests/soak.py", "--tahini", str(TAHINI), "--seconds", "20"]),
        *project_steps(),
        Step("demo", ["make", "--no-print-directory", "demo", "ONCE=1", f"TAHINI={TAHINI}"], limit=5 * MINUTE),
        Step("status page in a browser", ["node", "--test", "--test-reporter=spec", "--test-concurrency=1", *browser], node_test_count, env=with_node, limit=10 * MINUTE),
        engine,
        *contained,
    ]  # fmt: skip


# ---- the rig is fetched while the compiler works ------------------------------------------------

WAIT_FOR_RIG = Step("the rig (fetched meanwhile)", [], essential=True, limit=20 * MINUTE)


class Rig(threading.Thread):
    """`tests/rig/prepare.sh` in the background; its output is shown when it is waited for."""

    def __init__(self):
        super().__init__(daemon=True)
        self.said, self.code = "", 1

    def run(self):
        parts = ["venv", "browser", "crypto"] + (["engine"] if ROOT_USER else [])
        done = subprocess.run(["tests/rig/prepare.sh", *parts], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.said, self.code = done.stdout, done.returncode


def wait_for(rig, step):
    rig.join(step.limit)
    print(rig.said, end="")
    return (124 if rig.is_alive() else rig.code), ""


# ---- running ------------------------------------------------------------------------------------


def run(step):
    """Runs the step's command, shows what it prints; returns its exit code and its text."""
    if step.count is nextest_count:
        JUNIT.unlink(missing_ok=True)
    process = subprocess.Popen(
        step.command, cwd=ROOT, env={**os.environ, "TERM": "dumb", **step.env}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip

    def too_long():
        print(f"{step.name}: not done after {step.limit} s", flush=True)
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(step.limit, too_long)
    timer.start()
    lines = []
    try:
        with process.stdout:
            for line in process.stdout:
                lines.append(line)
                if not step.quiet:
                    print(line, end="", flush=True)
        return process.wait(), "".join(lines)
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGTERM)
        raise
    finally:
        timer.cancel()


def judge(step, code, text):
    """The step's counts; every way of not having tested anything is a failure."""
    count = step.count(text) if step.count else Count(passed=int(code == 0), failed=int(code != 0))
    if skips := len(re.findall(r"^SKIP:", text, re.M)):
        # A test that says so and returns counts as passed for its runner, or is the whole step.
        count += Count(passed=-min(skips, count.passed), skipped=skips, wanting=skips)
    if CI and count.wanting:
        print(f"{step.name}: {count.wanting} skipped for want of something; where CI=true that is a failure")
        count += Count(failed=count.wanting, skipped=-count.wanting)
    if code != 0 and count.failed == 0:
        print(f"{step.name}: ended with code {code}")
        count.failed = 1
    if count.passed + count.failed + count.skipped == 0:
        print(f"{step.name}: ran no test")
        count.failed = 1
    if count.failed and step.quiet:
        print(text, end="")
    return count


def run_all(steps, rig):
    total, table, stopped = Count(), [], False
    for step in steps:
        if stopped:
            table.append((step.name, "not run", ""))
            continue
        print(f"\n=== {step.name}", flush=True)
        begun = time.monotonic()
        code, text = wait_for(rig, step) if step is WAIT_FOR_RIG else run(step)
        count = judge(step, code, text)
        total += count
        verdict = f"{count.passed} passed" + (f", {count.failed} FAILED" if count.failed else "") + (f", {count.skipped} skipped" if count.skipped else "")
        table.append((step.name, f"{time.monotonic() - begun:.1f} s", verdict))
        stopped = step.essential and count.failed > 0
    return total, table


def main():
    what, wanted = sys.argv[1] if len(sys.argv) > 1 else "", sys.argv[2:]
    if what not in ("check", "test"):
        print(__doc__, file=sys.stderr)
        return 2
    steps = [s for s in (check_steps() if what == "check" else test_steps()) if not wanted or any(w in s.name for w in wanted) or (what == "test" and s is WAIT_FOR_RIG)]
    rig = Rig()
    if WAIT_FOR_RIG in steps:
        rig.start()
    begun = time.monotonic()
    total, table = run_all(steps, rig)
    width = max(len(name) for name, _, _ in table)
    print("\n" + "\n".join(f"{name:{width}}  {took:>9}  {verdict}" for name, took, verdict in table))
    print(f"{'in all':{width}}  {time.monotonic() - begun:>7.1f} s")
    print(f"\n{total.passed} passed, {total.failed} failed, {total.skipped} skipped", flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
