// A transform: answers entities with what they become.
//
//     POST /transform    a JSON array of entities; the same entities, each with `initials`

import { fileURLToPath } from "node:url";

import { serve, transform } from "./protocol.mjs";

/** The routes of the service. */
export const routes = { "POST /transform": transform(change) };

/** What some entities become; ask another system here, once for all of them where it can. */
async function change(entities) {
  return entities.map(withInitials);
}

/** The entity with the first letters of its name. One that is deleted passes as it is. */
function withInitials(entity) {
  if (entity._deleted || typeof entity.name !== "string") return entity;
  const words = entity.name.split(/\s+/).filter((word) => word !== "");
  return { ...entity, initials: words.map((word) => [...word][0]).join("") };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) serve(routes);
