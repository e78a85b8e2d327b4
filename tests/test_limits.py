"""The limits of one entity's evaluation through the binary: rules that try to take more, one process each.

Needs the environment variable TAHINI: the path of a built node. The promise is a second and 256 MB of an optimised
build (`python3 tests/limits.py --tahini target/release/tahini` holds it to that); a build of the profile `ci`, with
fewer optimisations and more checks, gets eight times as long of the processor, and no more memory.
"""

import concurrent.futures
import os
import unittest

import limits

SECONDS = 8.0
TAHINI = os.environ["TAHINI"]


def ended(cases, **more):
    """How each ended. What took too long beside others is measured once more, alone."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        all = list(pool.map(lambda case: limits.run(TAHINI, case, **more), cases))
    return [limits.run(TAHINI, case, **more) if end.seconds > SECONDS else end for case, end in zip(cases, all, strict=True)]


class Limits(unittest.TestCase):
    def test_rules_that_try_to_take_more(self):
        chosen = list(limits.cases())
        self.assertGreaterEqual(len(chosen), 250)
        ends = ended(chosen)
        wrong = [f"{case.name}: {verdict}" for case, end in zip(chosen, ends, strict=True) if (verdict := limits.wrong(case, end, SECONDS))]
        refused = sum(end.code == 1 for end in ends)
        print(f"{len(chosen)} rules, {refused} of them refused; longest {max(end.seconds for end in ends):.1f} s, most memory {max(end.megabytes for end in ends):.0f} MB")
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))
        self.assertGreaterEqual(refused, 150)

    def test_explanations(self):
        """Noting every step takes no more than the evaluation may."""
        grown = [limits.Case(f"explained: {kind}", rules) for kind, rules in (*limits.growths(), *limits.recursions())]
        ends = ended(grown, more=["--explain"])
        # A trace tells of the error and is itself the result.
        wrong = [f"{case.name}: {verdict}" for case, end in zip(grown, ends, strict=True) if (verdict := limits.wrong(limits.Case(case.name, case.rules, fails=None), end, SECONDS))]
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))


if __name__ == "__main__":
    unittest.main()
