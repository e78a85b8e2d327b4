"""The licence test finds what it is for."""

import unittest

from licences import allowed, findings

OURS = {"MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC"}
HOME = "https://example.org/index"


def crate(licence, source=f"registry+{HOME}"):
    return {"name": "x", "version": "1.0.0", "license": licence, "source": source}


class Expressions(unittest.TestCase):
    def test_one_of_several_is_enough(self):
        for expression in ("MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "(GPL-3.0 OR MIT) AND ISC", "GPL-3.0 AND ISC OR MIT"):
            self.assertTrue(allowed(expression, OURS), expression)

    def test_all_of_several_are_needed(self):
        for expression in ("GPL-3.0", "MIT AND GPL-3.0", "MIT AND (GPL-3.0 OR MPL-2.0)", "GPL-3.0 WITH LLVM-exception"):
            self.assertFalse(allowed(expression, OURS), expression)

    def test_an_exception_belongs_to_its_licence(self):
        self.assertTrue(allowed("Apache-2.0 WITH LLVM-exception", OURS))
        self.assertFalse(allowed("MIT WITH LLVM-exception", OURS))

    def test_what_is_no_expression_is_said(self):
        for expression in ("", "MIT AND", "(MIT", "MIT ISC", "OR MIT"):
            with self.assertRaises(ValueError, msg=expression):
                allowed(expression, OURS)


class Findings(unittest.TestCase):
    def test_each_crate_is_judged_by_licence_and_source(self):
        good = [crate("MIT"), crate("MIT", source=None)]
        self.assertEqual(findings(good, OURS, {HOME}), [])
        bad = [crate("GPL-3.0"), crate(None), crate("MIT", "git+https://example.org/x")]
        found = findings(bad, OURS, {HOME})
        self.assertEqual(len(found), 3, found)
        for finding, word in zip(found, ("GPL-3.0", "expected a licence", "git+"), strict=True):
            self.assertIn(word, finding)
