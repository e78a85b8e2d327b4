"""What the runners print, as they print it, and what must be counted from it."""

import tempfile
import unittest
from pathlib import Path

import run

NEXTEST_OUT = """
────────────
     Summary [   1.234s] 12 tests run: 10 passed (1 slow), 1 failed, 1 timed out, 7 skipped
        FAIL [   0.1s] tahini-entity wire
"""


class Counting(unittest.TestCase):
    def counts(self, count, passed, failed, skipped=0):
        self.assertEqual((count.passed, count.failed, count.skipped), (passed, failed, skipped))

    def test_unittest(self):
        self.counts(run.unittest_count("..\nRan 2 tests in 0.1s\n\nOK\n"), 2, 0)
        self.counts(run.unittest_count("Ran 9 tests in 0.1s\n\nFAILED (failures=1, errors=2, skipped=3)\n"), 3, 3, 3)
        self.counts(run.unittest_count("ImportError"), 0, 0)

    def test_node(self):
        self.counts(run.node_test_count("ℹ tests 5\nℹ pass 3\nℹ fail 1\nℹ cancelled 1\nℹ skipped 0\n"), 3, 2)
        self.counts(run.node_test_count("# pass 4\n# fail 0\n# cancelled 0\n# skipped 2\n"), 4, 0, 2)

    def test_cargo(self):
        out = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\ntest result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured\n"
        self.counts(run.libtest_count(out), 4, 2, 1)

    def test_nextest_with_tests_that_said_skip(self):
        with tempfile.TemporaryDirectory() as folder:
            run.JUNIT = Path(folder) / "junit.xml"
            run.JUNIT.write_text("""<testsuites><testsuite>
              <testcase name="a"/><testcase name="b"><system-err>noise
SKIP: no container engine
</system-err></testcase>
              <testcase name="c"><failure/><system-out>SKIP: then failed</system-out></testcase></testsuite></testsuites>""")
            self.counts(run.nextest_count(NEXTEST_OUT), 9, 2, 1)

    def test_a_project(self):
        self.counts(run.project_count('log line\n{"tests": [{"name": "a", "passed": true}, {"name": "b", "passed": false, "message": "x"}]}\n'), 1, 1)
        self.counts(run.project_count("{ not json"), 0, 0)


class Judging(unittest.TestCase):
    def setUp(self):
        self.ci = run.CI
        self.addCleanup(lambda: setattr(run, "CI", self.ci))
        run.CI = False

    def judge(self, code, text, count=None):
        c = run.judge(run.Step("a step", [], count), code, text)
        return c.passed, c.failed, c.skipped

    def test_a_plain_step_is_one_test(self):
        self.assertEqual(self.judge(0, ""), (1, 0, 0))
        self.assertEqual(self.judge(3, ""), (0, 1, 0))

    def test_no_test_is_a_failure(self):
        self.assertEqual(self.judge(0, "nothing", run.unittest_count), (0, 1, 0))

    def test_an_exit_code_without_a_failed_test_is_a_failure(self):
        self.assertEqual(self.judge(1, "Ran 2 tests in 0.1s\n\nOK\n", run.unittest_count), (2, 1, 0))

    def test_what_is_missing_is_a_skip_here_and_a_failure_in_ci(self):
        self.assertEqual(self.judge(0, "SKIP: no root\n"), (0, 0, 1))
        run.CI = True
        self.assertEqual(self.judge(0, "SKIP: no root\n"), (0, 1, 0))

    def test_tests_that_are_skipped_by_design_are_fine_in_ci(self):
        run.CI = True
        self.assertEqual(self.judge(0, "Ran 3 tests in 0.1s\n\nOK (skipped=1)\n", run.unittest_count), (2, 0, 1))

    def test_a_command_that_hangs_is_ended(self):
        code, _ = run.run(run.Step("hangs", ["sleep", "60"], limit=0.2))
        self.assertNotEqual(code, 0)


class Steps(unittest.TestCase):
    def test_no_test_file_is_forgotten(self):
        here = Path(__file__).resolve().parent
        run_by_steps = " ".join(word for step in run.test_steps() for word in step.command)
        forgotten = [file.name for file in sorted(here.glob("test_*.py")) if file.name not in run_by_steps]
        self.assertEqual(forgotten, [])


if __name__ == "__main__":
    unittest.main()
