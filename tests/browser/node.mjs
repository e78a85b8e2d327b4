// Starts the real node with an example project and the stand-ins that its services call.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const VENV = join(ROOT, ".cache/venv/bin");
const READY_WITHIN_MS = 30_000;
const LOOK_EVERY_MS = 50;

function freePort() {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => { const { port } = probe.address(); probe.close(() => resolve(port)); });
  });
}
/** Stops a process and waits for its end. */
function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => { child.once("exit", resolve); child.kill("SIGTERM"); });
}

/** The stand-ins of the outside APIs; they end with their standard input, even when we are killed. */
export async function standIns() {
  const child = spawn(join(VENV, "python"), [join(ROOT, "demo/standins/run.py"), "--until-eof"], { stdio: ["pipe", "pipe", "inherit"] });
  await new Promise((resolve, reject) => {
    let said = "";
    child.stdout.on("data", (chunk) => { said += chunk; if (/^ready$/m.test(said)) resolve(); });
    child.once("exit", (code) => reject(new Error(`the stand-ins ended with code ${code}`)));
  });
  const hubspot = "http://127.0.0.1:9251";
  return {
    async edit(id, properties, at) {
      const answer = await fetch(`${hubspot}/__control`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ operation: "edit", id, properties, at }) });
      if (answer.status !== 200) throw new Error(`the stand-in did not edit: ${answer.status} ${await answer.text()}`);
    },
    stop: () => end(child),
  };
}

/** `tahini serve` with one example project; pipes run only when asked. */
export async function startNode(project, ...options) {
  const folder = mkdtempSync(join(tmpdir(), "tahini-node-"));
  const example = join(ROOT, "examples", project), port = await freePort(), url = `http://127.0.0.1:${port}/`;
  const child = spawn(process.env.TAHINI, ["serve", "--data", join(folder, "data"), "--listen", `127.0.0.1:${port}`, "--no-schedule", "--profile", "test", "--secrets", join(example, "secrets.json"), ...options, example], {
    env: { ...process.env, PATH: `${VENV}:${process.env.PATH}`, TAHINI_MASTER_KEY_FILE: join(folder, "master.key") }, stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  child.stderr.on("data", (chunk) => { log += chunk; });
  const stop = async () => { await end(child); rmSync(folder, { recursive: true, force: true }); };
  const deadline = Date.now() + READY_WITHIN_MS;
  for (;;) {
    if (child.exitCode !== null) throw new Error(`the node ended with code ${child.exitCode}:\n${log}`);
    if (await fetch(`${url}readyz`).then((answer) => answer.status === 200, () => false)) return { url, stop, log: () => log };
    if (Date.now() > deadline) { await stop(); throw new Error(`the node was not ready in time:\n${log}`); }
    await new Promise((next) => setTimeout(next, LOOK_EVERY_MS));
  }
}
