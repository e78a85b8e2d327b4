// node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import { routes } from "./service.mjs";
import { started } from "./testing.mjs";

const ADA = { _id: "1", _deleted: false, name: "Ada Lovelace" };

test("each comes back whole with its initials", async (t) => {
  const ask = await started(t, routes);
  const expected = [200, [{ ...ADA, initials: "AL" }, { _id: "2" }]];
  assert.deepEqual(await ask("POST", "/transform", [ADA, { _id: "2" }]), expected);
});

test("deleted ones pass", async (t) => {
  const ask = await started(t, routes);
  const gone = { ...ADA, _deleted: true };
  assert.deepEqual(await ask("POST", "/transform", [gone]), [200, [gone]]);
});

test("nothing becomes nothing", async (t) => {
  const ask = await started(t, routes);
  assert.deepEqual(await ask("POST", "/transform", []), [200, []]);
});

test("what is no batch is refused", async (t) => {
  const ask = await started(t, routes);
  for (const wrong of ['[{"_id": "1"}', "", '["1"]', "{}"]) {
    assert.equal((await ask("POST", "/transform", wrong))[0], 400, wrong);
  }
});

test("a batch that breaks off late cuts the answer", async (t) => {
  const ask = await started(t, routes);
  await assert.rejects(ask("POST", "/transform", `[${'{"_id": "1"},'.repeat(1000)}`));
});
