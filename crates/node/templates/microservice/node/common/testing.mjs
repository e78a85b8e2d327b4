// What the tests share: the service on a free port, and plain HTTP.

import { once } from "node:events";

import { server } from "./protocol.mjs";

/** Starts a service of `routes` for one test; a function that asks it: status and JSON of the answer. */
export async function started(test, routes) {
  const running = server(routes).listen(0, "127.0.0.1");
  await once(running, "listening");
  test.after(() => {
    running.closeAllConnections();
    running.close();
  });
  return async (method, path, body) => {
    const text = body === undefined || typeof body === "string" || body instanceof Uint8Array ? body : JSON.stringify(body);
    const answer = await fetch(`http://127.0.0.1:${running.address().port}${path}`, { method, body: text });
    return [answer.status, await answer.json()];
  };
}
