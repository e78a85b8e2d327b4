// node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import { routes } from "./service.mjs";
import { started } from "./testing.mjs";

const ADA = { id: "1", changed: 1, name: "Ada" };
const GRACE = { id: "2", changed: 2, name: "Grace" };
const GONE = { id: "1", changed: 3, deleted: true };

/** A service of what is given; an error among it is thrown when its turn comes. */
function service(test, given = [ADA, GRACE, GONE]) {
  async function* changes(since) {
    for (const record of given) {
      if (record instanceof Error) throw record;
      if (since === undefined || record.changed > since) yield record;
    }
  }
  return started(test, routes({ changes }));
}

test("everything", async (t) => {
  const [status, entities] = await (await service(t))("GET", "/entities");
  assert.equal(status, 200);
  assert.deepEqual(entities.map((entity) => [entity._id, entity._updated]), [["1", 1], ["2", 2], ["1", 3]]);
  assert.equal(entities[0].name, "Ada");
});

test("what is gone is deleted", async (t) => {
  const ask = await service(t);
  assert.deepEqual(await ask("GET", "/entities?since=2"), [200, [{ _id: "1", _updated: 3, _deleted: true }]]);
});

test("since and limit", async (t) => {
  const ask = await service(t);
  assert.deepEqual((await ask("GET", "/entities?since=1&limit=1"))[1].map((entity) => entity._id), ["2"]);
  assert.deepEqual(await ask("GET", "/entities?since=3"), [200, []]);
});

test("what is no since is refused", async (t) => {
  const ask = await service(t);
  assert.equal((await ask("GET", "/entities?since=yesterday"))[0], 400);
  assert.equal((await ask("GET", "/entities?limit=few"))[0], 400);
  assert.equal((await ask("GET", "/elsewhere"))[0], 404);
  assert.equal((await ask("POST", "/entities", []))[0], 405);
});

test("a failure at once is an error", async (t) => {
  const ask = await service(t, [new Error("no connection")]);
  assert.deepEqual(await ask("GET", "/entities"), [500, { message: "no connection" }]);
});

test("a failure half-way cuts the answer", async (t) => {
  const ask = await service(t, [ADA, new Error("the connection broke")]);
  await assert.rejects(ask("GET", "/entities"));
});
