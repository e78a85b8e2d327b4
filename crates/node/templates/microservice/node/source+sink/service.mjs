// A source and a sink: a system's records as entities, and entities written to it.
//
//     GET  /entities                     every record
//     GET  /entities?since=X             those that were changed after X
//     GET  /entities?since=X&limit=N     the first N of them
//     POST /entities                     a JSON array of entities; 200 when all of it is written
//     POST /lookup                       the same entities, each with `current`: what the system holds now
//
// A pipe that writes asks /lookup first: where `current` is not what was collected last, somebody has changed the
// record meanwhile, and the pipe waits until that change has been collected (optimistic locking).

import { fileURLToPath } from "node:url";

import { Refused, pull, push, serve, transform } from "./protocol.mjs";
import { Records } from "./records.mjs";

/** The routes of a service of these records. */
export function routes(records) {
  return {
    "GET /entities": pull((since) => changes(records, since)),
    "POST /entities": push((entities) => take(records, entities)),
    "POST /lookup": transform((entities) => lookUp(records, entities)),
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

/** Entities with what the system holds under their _id, null where that is nothing. */
async function lookUp(records, entities) {
  const known = await records.find(entities.map((entity) => entity._id));
  return entities.map((entity) => ({ ...entity, current: known.get(entity._id) ?? null }));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  serve(routes(new Records(process.env.RECORDS ?? "records.ndjson")));
}
