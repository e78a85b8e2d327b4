// A stand-in for the node's API, for the states of the page that a real node shows rarely: a
// refused token, a thousand pipes, an answer cut short, numbers beyond 2^53.
import { createServer } from "node:http";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";

const PAGE = new URL("../../crates/node/ui/index.html", import.meta.url);

export const minutesAgo = (n) => new Date(Date.now() - n * 60_000).toISOString();

/** One pipe as the API describes it; `runtime` and `config` override. */
export function pipe(_id, runtime = {}, config = {}) {
  const effective = {
    _id, type: "pipe", source: { type: "json", system: "crm", url: "people" },
    sink: { type: "dataset", dataset: _id }, pump: { schedule_interval: 30 }, ...config,
  };
  return {
    _id, config: { original: { _id, type: "pipe", ...config }, effective },
    runtime: {
      state: "finished", "is-running": false, "is-disabled": false, "is-valid-config": true, success: true,
      "last-run": minutesAgo(3), "next-run": null, queues: { source: null, dependencies: {} }, "last-seen": null,
      "execution-dataset": `system:pump_execution:${_id}`,
      "supported-operations": ["start", "stop", "start-rescan", "enable", "disable", "update-last-seen"],
      "last-run-summary": { sync_type: "incremental", entities_read: 1, changed: 0, deleted: 0, failed: 0, total_time: 0.012, success: true },
      ...runtime,
    },
  };
}

/** A node's state that tests may change; answers are made from it at every request. */
export function state(over = {}) {
  return { pipes: [], datasets: {}, systems: [], statuses: {}, logs: {}, token: null, truncate: false, operations: [], requests: [], ...over };
}

function versionsOf(node, dataset, id) {
  return (node.datasets[dataset] ?? []).filter((e) => e._id === id);
}

function entities(node, dataset, query) {
  let rows = node.datasets[dataset];
  if (query.get("history") === "false") {
    const latest = new Map();
    for (const e of rows) latest.set(e._id, e);
    rows = rows.filter((e) => latest.get(e._id) === e);
    if (query.get("deleted") === "false") rows = rows.filter((e) => !e._deleted);
  }
  if (query.get("reverse") === "true") rows = [...rows].reverse();
  const limit = query.get("limit");
  return limit ? rows.slice(0, Number(limit)) : rows;
}

function entity(node, dataset, query) {
  const versions = versionsOf(node, dataset, query.get("entity_id"));
  return query.has("offset") ? versions.find((e) => String(e._updated) === query.get("offset")) : versions.at(-1);
}

function operate(node, one, form) {
  const operation = form.get("operation");
  node.operations.push(`${one._id} ${[...form].map(([k, v]) => `${k}=${v}`).join("&")}`);
  if (operation === "start") one.runtime["is-running"] = true;
  if (operation === "stop") one.runtime["is-running"] = false;
  if (operation === "disable") one.runtime["is-disabled"] = true;
  if (operation === "enable") one.runtime["is-disabled"] = false;
  return { _id: `pump:${one._id}`, runtime: one.runtime };
}

/** The answer to one API request: a JSON value, `{ text }`, or undefined for 404. */
function answer(node, path, query, form) {
  const [kind, id, rest] = path.split("/").slice(1).map(decodeURIComponent);
  const dataset = (name) => node.datasets[name] && { _id: name, runtime: { "count-index-exists": new Set(node.datasets[name].map((e) => e._id)).size, "count-index-deleted": 0, "last-modified": minutesAgo(1) } };
  if (!kind) return { status: { version: "0.1.0-stub", developer_mode: true } };
  if (kind === "pipes" && !id) {
    const fields = (query.get("fields") ?? "runtime,config").split(",");
    return node.pipes.map((p) => ({ _id: p._id, ...Object.fromEntries(fields.map((f) => [f, p[f]])) }));
  }
  if (kind === "pipes") {
    const one = node.pipes.find((p) => p._id === id);
    if (one && (rest === "lineage" || rest === "hops")) return one[rest];
    return one && rest === "pump" && form ? operate(node, one, form) : one;
  }
  if (kind === "datasets" && !id) return Object.keys(node.datasets).map(dataset);
  if (kind === "datasets" && node.datasets[id]) return { entities, entity }[rest]?.(node, id, query) ?? (rest ? undefined : dataset(id));
  if (kind === "systems" && !id) return node.systems;
  if (kind === "systems" && rest === "status") return node.statuses[id];
  if (kind === "systems" && rest === "logs") return id in node.logs ? { text: node.logs[id] } : undefined;
  if (kind === "systems") return node.systems.find((s) => s._id === id);
  return undefined;
}

function serve(node, request, response, body) {
  const url = new URL(request.url, "http://stub");
  if (url.pathname === "/") {
    const nonce = randomBytes(16).toString("base64");
    response.setHeader("Content-Security-Policy", `default-src 'none'; script-src 'nonce-${nonce}'; style-src 'nonce-${nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`);
    response.setHeader("Content-Type", "text/html; charset=utf-8");
    response.end(readFileSync(PAGE, "utf8").replaceAll("TAHINI_NONCE", nonce));
    return;
  }
  node.requests.push(`${request.method} ${url.pathname}${url.search}`);
  response.setHeader("Content-Type", "application/json");
  if (node.token && request.headers.authorization !== `Bearer ${node.token}`) {
    response.writeHead(401).end(JSON.stringify({ status: 401, title: "Unauthorized", detail: "expected a bearer token" }));
    return;
  }
  const found = answer(node, url.pathname.slice("/api".length).replace(/\/$/, ""), url.searchParams, request.method === "POST" ? new URLSearchParams(body) : null);
  if (found === undefined) response.writeHead(404).end(JSON.stringify({ status: 404, title: "Not found", detail: `there is nothing at ${url.pathname}` }));
  else if (found?.text !== undefined && !found._id) response.writeHead(200, { "Content-Type": "text/plain; charset=utf-8" }).end(found.text);
  else {
    // A number in the state may be given as { exact: "digits" }: it is written as those digits.
    const text = JSON.stringify(found).replaceAll(/\{"exact":"([^"]*)"\}/g, "$1");
    response.end(node.truncate ? text.slice(0, text.length >> 1) : text);
  }
}

/** Listens on a free loopback port; resolves to the page's address and a way to stop. */
export function start(node) {
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => (body += chunk)).on("end", () => serve(node, request, response, body));
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve({
    url: `http://127.0.0.1:${server.address().port}/`,
    stop: () => new Promise((done) => { server.closeAllConnections(); server.close(done); }),
  })));
}
