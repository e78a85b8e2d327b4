// node --test

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { Records } from "./records.mjs";
import { routes } from "./service.mjs";
import { started } from "./testing.mjs";

const ADA = { _id: "1", _deleted: false, _updated: 7, _previous: null, _ts: 1, _hash: "0", name: "Ada" };

async function service(test) {
  const folder = mkdtempSync(join(tmpdir(), "service-"));
  test.after(() => rmSync(folder, { recursive: true }));
  const ask = await started(test, routes(new Records(join(folder, "records.ndjson"))));
  return {
    ask,
    pull: (query = "") => ask("GET", `/entities${query}`),
    push: async (batch) => (await ask("POST", "/entities?sequence_id=s&is_full=false&request_id=1", batch))[0],
  };
}

test("what is written comes back as a change", async (t) => {
  const { pull, push } = await service(t);
  assert.deepEqual(await pull(), [200, []]);
  assert.equal(await push([ADA]), 200);
  assert.deepEqual(await pull(), [200, [{ _id: "1", _updated: 1, name: "Ada", id: "1", changed: 1 }]]);
});

test("the same again is no change", async (t) => {
  const { pull, push } = await service(t);
  assert.deepEqual([await push([ADA]), await push([ADA]), await push([])], [200, 200, 200]);
  assert.deepEqual(await pull("?since=1"), [200, []]);
});

test("deleted twice is one change", async (t) => {
  const { pull, push } = await service(t);
  const gone = { _id: "1", _deleted: true };
  assert.deepEqual([await push([ADA]), await push([gone]), await push([gone])], [200, 200, 200]);
  assert.deepEqual(await pull("?since=1"), [200, [{ _id: "1", _updated: 2, _deleted: true }]]);
});

test("one that comes again after its deletion", async (t) => {
  const { pull, push } = await service(t);
  for (const batch of [[ADA], [{ _id: "1", _deleted: true }], [ADA]]) assert.equal(await push(batch), 200);
  assert.deepEqual((await pull())[1].map((entity) => entity._deleted ?? false), [false, true, false]);
});

test("a change that was not collected is not overwritten", async (t) => {
  const { ask, push } = await service(t);
  const wanted = { _id: "1", name: "Ada L." };
  await push([ADA]);
  assert.deepEqual(await ask("POST", "/unchanged", [{ ...wanted, expected: 1 }]), [200, [wanted]]);
  await push([{ ...ADA, name: "Ada K." }]);
  const [status, said] = await ask("POST", "/unchanged", [{ ...wanted, expected: 1 }]);
  assert.equal(status, 400);
  assert.match(said.message, /^1: expected change 1 in the system, found 2/);
  assert.equal((await ask("POST", "/unchanged", [{ ...wanted, expected: 2 }]))[0], 200);
  assert.deepEqual(await ask("POST", "/unchanged", [{ _id: "2", expected: 0 }]), [200, [{ _id: "2" }]]);
});

test("since and limit", async (t) => {
  const { pull, push } = await service(t);
  await push(Array.from({ length: 5 }, (_, at) => ({ _id: `${at}` })));
  assert.deepEqual((await pull("?since=2&limit=2"))[1].map((entity) => entity._id), ["2", "3"]);
  assert.equal((await pull("?since=now"))[0], 400);
});

test("what is no batch is refused", async (t) => {
  const { push } = await service(t);
  for (const wrong of ['[{"_id": "1"}', "", '["1"]', "{}", '[{"name": "x"}]']) assert.equal(await push(wrong), 400, wrong);
});
