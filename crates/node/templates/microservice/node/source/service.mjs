// A source: the records of a system as a stream of entities.
//
//     GET /entities                     every record
//     GET /entities?since=X             those that were changed after X
//     GET /entities?since=X&limit=N     the first N of them

import { fileURLToPath } from "node:url";

import { Refused, pull, serve } from "./protocol.mjs";
import { Records } from "./records.mjs";

/** The routes of a service of these records. */
export function routes(records) {
  return { "GET /entities": pull((since) => changes(records, since)) };
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

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  serve(routes(new Records(process.env.RECORDS ?? "records.ndjson")));
}
