// A source and a sink: a system's records as entities, and entities written to it.
//
//     GET  /entities                     every record
//     GET  /entities?since=X             those that were changed after X
//     GET  /entities?since=X&limit=N     the first N of them
//     POST /entities                     a JSON array of entities; 200 when all of it is written
//     POST /unchanged                    the same entities, when nobody has changed their records meanwhile; else 400
//
// A pipe that writes asks /unchanged first. An entity says in `expected` which change of its record was collected last, 0
// for none. Where the system holds another by now, the entity is refused: the node sets it aside, and tries it again in
// later runs, when that change has been collected (optimistic locking).

import { fileURLToPath } from "node:url";

import { Refused, pull, push, serve, transform } from "./protocol.mjs";
import { Records } from "./records.mjs";

/** The routes of a service of these records. */
export function routes(records) {
  return {
    "GET /entities": pull((since) => changes(records, since)),
    "POST /entities": push((entities) => take(records, entities)),
    "POST /unchanged": transform((entities) => unchanged(records, entities)),
  };
}

/** What was changed after `since`, oldest change first. It is the _updated of an entity that we sent. */
async function* changes(records, since) {
  if (since !== undefined && !/^-?[0-9]+$/.test(since)) {
    throw new Refused(`since: expected a number, found ${JSON.stringify(since)}`);
  }
  for await (const record of records.changes(since && Number(since))) yield entityOf(record);
}

/** A record as an entity: _id says whose it is, _updated when it changed, _deleted that it is gone. */
function entityOf(record) {
  const entity = { _id: record.id, _updated: record.changed };
  return record.deleted ? { ...entity, _deleted: true } : { ...entity, ...record };
}

/** Writes some entities, in their order. An error refuses them all: the node asks again, or one by one. */
async function take(records, entities) {
  await records.write(entities.map(recordOf));
}

/** An entity as a record. What begins with an underscore is the node's and not the system's. */
function recordOf(entity) {
  if (entity._deleted) return { id: entity._id, deleted: true };
  const own = Object.entries(entity).filter(([name]) => !name.startsWith("_"));
  return { ...Object.fromEntries(own), id: entity._id };
}

/** The entities without `expected`; an API that knows conditional writes would be told of it in `take` instead. */
async function unchanged(records, entities) {
  const known = await records.find(entities.map((entity) => entity._id));
  return entities.map(({ expected = 0, ...entity }) => {
    const found = known.get(entity._id)?.changed ?? 0;
    if (expected === found) return entity;
    throw new Refused(`${entity._id}: expected change ${expected} in the system, found ${found}: somebody was faster`);
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  serve(routes(new Records(process.env.RECORDS ?? "records.ndjson")));
}
