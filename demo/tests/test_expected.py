"""The committed expected files of the examples are what the stand-ins' data says."""

import json
import unittest

from support import ROOT

import examples_expected


class Expected(unittest.TestCase):
    def test_the_long_files_are_up_to_date(self):
        for path, entities in examples_expected.FILES.items():
            committed = (ROOT / path).read_text("utf-8")
            self.assertEqual(committed, examples_expected.text_of(entities()), f"{path}: run demo/examples_expected.py")

    def test_they_hold_what_the_readmes_say(self):
        counts = {path.rsplit("/", 1)[1]: len(entities()) for path, entities in examples_expected.FILES.items()}
        self.assertEqual(
            counts,
            {
                "hubspot-addresses.json": 250,
                "hubspot-oslo-customers.json": 9,
                "contacts-addresses.json": 250,
                "contacts-oslo-customers.json": 9,
                "github-portfolio.json": 27,
                "people-to-crm.json": 150,
                "sales-contacts.json": 57,
            },
        )

    def test_every_endpoint_and_output_pipe_has_a_test(self):
        for project in sorted((ROOT / "examples").iterdir()):
            tested = {
                json.loads(spec.read_text("utf-8"))["pipe"] for spec in (project / "expected").glob("*.test.json")
            }
            pipes = [json.loads(file.read_text("utf-8")) for file in (project / "pipes").glob("*.conf.json")]
            ends = {pipe["_id"] for pipe in pipes if pipe.get("sink", {}).get("type", "dataset") != "dataset"}
            self.assertEqual(tested, ends, project.name)

    def test_ids_are_unique_across_the_examples(self):
        for kind in ("pipes", "systems"):
            files = sorted((ROOT / "examples").glob(f"*/{kind}/*.conf.json"))
            ids = [json.loads(file.read_text("utf-8"))["_id"] for file in files]
            self.assertEqual(len(ids), len(set(ids)), ids)
            self.assertEqual([file.name for file in files], [f"{identity}.conf.json" for identity in ids])


if __name__ == "__main__":
    unittest.main()
