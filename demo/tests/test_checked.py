"""The examples' services, spoken to by `tahini microservice check`.

Needs the node's path in TAHINI. Without it these are skipped, and fail where CI is set.
"""

import json
import os
import subprocess
import tempfile
import unittest

from support import ROOT, Microservice, Running, needs_node

import crm
import github
import hubspot
import postcode

# What the outside APIs do not offer, so that their services cannot either. Each is in the services' own words.
KNOWN = {
    "hubspot": {("pull", "id"), ("pull", "limit")},
    "github": {("pull", "id"), ("pull", "limit"), ("pull", "order")},
    "write-back": set(),
    "enrich": set(),
}


@needs_node
class Checked(unittest.TestCase):
    def check(self, kind, example, path, what, environment, entities=None):
        """Nothing wrong, and no warnings but the known ones."""
        api = Running(kind)
        self.addCleanup(api.stop)
        service = Microservice(example, **environment(api.url))
        self.addCleanup(service.stop)
        command = [os.environ["TAHINI"], "microservice", "check", service.url + path, "--kind", what, "--json"]
        if entities:
            file = tempfile.NamedTemporaryFile("w", suffix=".json")
            self.addCleanup(file.close)
            json.dump(entities, file)
            file.flush()
            command += ["--entities", file.name]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_PROXY": "*"})
        report = json.loads(done.stdout)
        shown = json.dumps(report, indent=1) + "".join(service.lines[-20:])
        self.assertEqual((done.returncode, report["wrong"]), (0, 0), shown)
        warned = {(row["protocol"], row["check"]) for row in report["findings"] if row["verdict"] == "warning"}
        self.assertEqual(warned, KNOWN[example], shown)

    def test_hubspot(self):
        def environment(url):
            return {"api-key": hubspot.TOKEN, "base-url": f"{url}/crm/v3", "since-field": "lastmodifieddate", "since-operator": "GTE"}

        self.check(hubspot.HubSpot, "hubspot", "/get_contacts", "source", environment)

    def test_github(self):
        self.check(github.GitHub, "github", "/repos", "source", lambda url: {"access_token": github.TOKEN, "base_url": url})

    def test_write_back(self):
        pipe = json.loads((ROOT / "examples/write-back/pipes/people.conf.json").read_text("utf-8"))
        people = pipe["source"]["entities"][:5]
        self.check(crm.Crm, "write-back", "/people", "sink", lambda url: {"token": crm.TOKEN, "base_url": f"{url}/api"}, people)

    def test_enrich(self):
        customers = [{"_id": "a", "postal_code": "9900"}, {"_id": "b", "postal_code": "0000"}, {"_id": "c"}]
        self.check(postcode.Postcode, "enrich", "/places", "transform", lambda url: {"api_key": postcode.KEY, "base_url": f"{url}/v1"}, customers)


if __name__ == "__main__":
    unittest.main()
