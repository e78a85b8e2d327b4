// node --test

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { Records } from "./records.mjs";
import { routes } from "./service.mjs";
import { started } from "./testing.mjs";

const ADA = { _id: "1", _deleted: false, _updated: 7, _previous: null, _ts: 1, _hash: "0", name: "Ada æ" };

async function all(records) {
  const found = [];
  for await (const record of records) found.push(record);
  return found;
}

async function service(test) {
  const folder = mkdtempSync(join(tmpdir(), "service-"));
  test.after(() => rmSync(folder, { recursive: true }));
  const records = new Records(join(folder, "records.ndjson"));
  const ask = await started(test, routes(records));
  return {
    written: () => all(records.changes()),
    push: async (batch, query = "sequence_id=s&is_full=false&request_id=1") => (await ask("POST", `/entities?${query}`, batch))[0],
  };
}

test("a record without what is the node's", async (t) => {
  const { push, written } = await service(t);
  assert.equal(await push([ADA]), 200);
  assert.deepEqual(await written(), [{ name: "Ada æ", id: "1", changed: 1 }]);
});

test("the same batch twice is written once", async (t) => {
  const { push, written } = await service(t);
  assert.deepEqual([await push([ADA]), await push([ADA])], [200, 200]);
  assert.equal((await written()).length, 1);
});

test("deleted twice is deleted", async (t) => {
  const { push, written } = await service(t);
  const gone = { _id: "1", _deleted: true };
  assert.deepEqual([await push([ADA]), await push([gone]), await push([gone])], [200, 200, 200]);
  assert.deepEqual((await written()).slice(1), [{ id: "1", deleted: true, changed: 2 }]);
});

test("the empty batch at the end", async (t) => {
  const { push, written } = await service(t);
  assert.equal(await push([]), 200);
  assert.equal(await push([], "sequence_id=s&is_full=true&request_id=2&previous_request_id=1&is_last=true"), 200);
  assert.deepEqual(await written(), []);
});

test("what is no batch is refused", async (t) => {
  const { push } = await service(t);
  const notUtf8 = Buffer.from('[{"_id": "\xff"}]', "latin1");
  for (const wrong of ['[{"_id": "1"}', "", '["1"]', "{}", '[{"name": "x"}]', '[{"_id": "1"}] x', notUtf8]) {
    assert.equal(await push(wrong), 400, wrong);
  }
});

test("entities of any size and number", async (t) => {
  const { push, written } = await service(t);
  const many = Array.from({ length: 101 }, (_, at) => ({ _id: `${at}`, text: "\\\"x".repeat(at * 300) }));
  assert.equal(await push(many), 200);
  assert.deepEqual((await written()).map((record) => record.text.length), many.map((entity) => entity.text.length));
});
