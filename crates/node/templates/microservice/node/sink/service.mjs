// A sink: writes entities to a system.
//
//     POST /entities    a JSON array of entities; 200 when all of it is written
//
// Writing is by id, so that a batch that comes twice does no harm: the node sends again what it got no answer for.

import { fileURLToPath } from "node:url";

import { push, serve } from "./protocol.mjs";
import { Records } from "./records.mjs";

/** The routes of a service of these records. */
export function routes(records) {
  return { "POST /entities": push((entities) => take(records, entities)) };
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

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  serve(routes(new Records(process.env.RECORDS ?? "records.ndjson")));
}
