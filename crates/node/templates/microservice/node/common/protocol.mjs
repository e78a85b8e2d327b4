// The JSON protocols over HTTP: entities as streams, in and out, one at a time.
//
// Nothing but Node's own modules, and nothing here that is particular to this service: what it does stands in
// service.mjs. Memory does not grow with the number of entities: what comes is taken apart as it arrives, and what goes
// is written as it is made, no faster than the other side reads.
//
// JavaScript's numbers have 53 bits: integers beyond that lose digits. Entities that have such numbers carry them
// unharmed as strings.

import { createServer } from "node:http";

const CHUNK_BYTES = 64 * 1024;
const LARGEST_ENTITY_BYTES = 16 * 1024 * 1024;

/** The request is wrong, and sending it again would not help. The text says what was expected and what came. */
export class Refused extends Error {}

/** A route that gives entities: `changes(since)` yields those changed after `since`, or all where it is undefined. */
export function pull(changes) {
  return async (request, response, query) => {
    const limit = query.get("limit");
    if (limit !== null && !/^[0-9]+$/.test(limit)) {
      throw new Refused(`limit: expected a number, found ${JSON.stringify(limit)}`);
    }
    const entities = changes(query.get("since") || undefined);
    await send(request, response, limit === null ? entities : first(Number(limit), entities));
  };
}

/**
 * A route that takes entities: `take(entities)` gets an array of at most `group`, often; all of them have an _id.
 *
 * The answer says 200 when every group was taken. The last batch of every run is empty, and then `take` is not called.
 */
export function push(take, group = 100) {
  return async (request, response) => {
    let count = 0;
    for await (const entities of groups(entitiesIn(request), group)) {
      for (const { _id } of entities) {
        if (typeof _id !== "string") {
          throw new Refused(`expected entities with a string _id, found ${JSON.stringify(_id)}`);
        }
      }
      await take(entities);
      count += entities.length;
    }
    console.log(`INFO took ${count} entities`);
    reply(response, 200, {});
  };
}

/** A route that answers entities with what they become: `change(entities)` gets an array and returns one. */
export function transform(change, group = 100) {
  return async (request, response) => {
    async function* changed() {
      for await (const entities of groups(entitiesIn(request), group)) yield* await change(entities);
    }
    await send(request, response, changed());
  };
}

async function* first(count, entities) {
  if (count === 0) return;
  for await (const entity of entities) {
    yield entity;
    if (--count === 0) return;
  }
}

async function* groups(entities, size) {
  let group = [];
  for await (const entity of entities) {
    group.push(entity);
    if (group.length === size) {
      yield group;
      group = [];
    }
  }
  if (group.length > 0) yield group;
}

const [QUOTE, BACKSLASH, COMMA] = ['"', "\\", ","].map((text) => text.charCodeAt(0));
const [OPEN, CLOSE, BEGIN, END] = ["{", "}", "[", "]"].map((text) => text.charCodeAt(0));
const isSpace = (byte) => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;

/** The objects of a JSON array, each as soon as it is whole; `chunks` are its bytes. */
export async function* entitiesIn(chunks) {
  const utf8 = new TextDecoder("utf-8", { fatal: true });
  let buffer = Buffer.alloc(0);
  // What comes next: "begin", "first", "entity", "inside", "behind" or "end".
  let state = "begin", at = 0, start = 0, depth = 0, inText = false;
  const wrong = (expected) => new Refused(`expected ${expected}, found ${JSON.stringify(buffer.toString("utf8", at, at + 20)) || "the end"}`);
  for await (const chunk of chunks) {
    const kept = state === "inside" ? start : at;
    buffer = kept < buffer.length ? Buffer.concat([buffer.subarray(kept), chunk]) : chunk;
    at -= kept;
    start -= kept;
    if (buffer.length > LARGEST_ENTITY_BYTES + chunk.length) {
      throw new Refused(`expected entities of at most ${LARGEST_ENTITY_BYTES} bytes, found a larger one`);
    }
    while (at < buffer.length) {
      const byte = buffer[at];
      if (state === "inside") {
        if (inText) {
          if (byte === BACKSLASH) at += 1;
          else if (byte === QUOTE) inText = false;
        } else if (byte === QUOTE) inText = true;
        else if (byte === OPEN || byte === BEGIN) depth += 1;
        else if ((byte === CLOSE || byte === END) && --depth === 0) {
          yield parsed(utf8, buffer.subarray(start, at + 1));
          state = "behind";
        }
      } else if (!isSpace(byte)) {
        if (state === "begin" && byte === BEGIN) state = "first";
        else if (state === "first" && byte === END) state = "end";
        else if ((state === "first" || state === "entity") && byte === OPEN) [state, start, depth] = ["inside", at, 1];
        else if (state === "behind" && byte === COMMA) state = "entity";
        else if (state === "behind" && byte === END) state = "end";
        else throw wrong(state === "begin" ? "a JSON array of entities" : state === "end" ? "nothing behind the array" : "an entity");
      }
      at += 1;
    }
  }
  if (state !== "end") throw new Refused("expected a whole JSON array of entities, found the end of the body");
}

function parsed(utf8, bytes) {
  try {
    return JSON.parse(utf8.decode(bytes));
  } catch (error) {
    throw new Refused(`expected JSON in UTF-8: ${error.message}`);
  }
}

/** A small answer: `value` as JSON. */
function reply(response, status, value, headers = {}) {
  const text = JSON.stringify(value);
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text), ...headers });
  response.end(text);
}

/** A large answer: a JSON array, written as the entities come. */
async function send(request, response, entities) {
  const coming = entities[Symbol.asyncIterator]?.() ?? entities[Symbol.iterator]();
  // The first is there before the status, so that a wrong parameter or password is an error answer.
  let next = await coming.next();
  response.writeHead(200, { "Content-Type": "application/json" });
  let waiting = "[", count = 0;
  try {
    for (; !next.done; next = await coming.next()) {
      waiting += (count++ ? "," : "") + JSON.stringify(next.value);
      if (waiting.length >= CHUNK_BYTES) {
        if (response.destroyed) return console.log(`INFO ${request.url}: the other side hung up`);
        const room = response.write(waiting);
        waiting = "";
        if (!room) await read(response);
      }
    }
  } finally {
    await coming.return?.();
  }
  response.end(waiting + "]");
  console.log(`INFO ${request.url}: sent ${count} entities`);
}

/** Waits until the other side has read what was written, or is gone. */
function read(response) {
  return new Promise((resolve) => {
    const done = () => {
      response.off("drain", done).off("close", done);
      resolve();
    };
    response.on("drain", done).on("close", done);
  });
}

/** A server of `routes`: "GET /path" to a function of request, response and query. */
export function server(routes) {
  return createServer(async (request, response) => {
    const url = new URL(request.url, "http://service");
    try {
      const route = routes[`${request.method} ${url.pathname}`];
      if (route) return await route(request, response, url.searchParams);
      const known = Object.keys(routes).some((name) => name.endsWith(` ${url.pathname}`));
      request.resume();
      reply(response, known ? 405 : 404, { message: `expected one of ${Object.keys(routes).join(", ")}` });
    } catch (error) {
      fail(request, response, error);
    }
  });
}

/** An error answer; where the array has begun, a cut: one that ends neatly would say that these were all. */
function fail(request, response, error) {
  const status = error instanceof Refused ? 400 : 500;
  console.log(`ERROR ${request.method} ${request.url}: ${status === 400 ? error.message : error.stack}`);
  if (response.headersSent) return response.destroy(error);
  // What is left of the body is read and thrown away, so that its sender sees the answer.
  request.resume();
  reply(response, status, { message: error.message }, { Connection: "close" });
}

/** Serves until SIGTERM, on PORT and, where HOST does not say otherwise, for this machine alone. */
export function serve(routes) {
  const { HOST = "127.0.0.1", PORT = "5000" } = process.env;
  const running = server(routes);
  process.on("SIGTERM", () => process.exit(0));
  running.listen(Number(PORT), HOST, () => console.log(`INFO listening on port ${running.address().port}`));
}
