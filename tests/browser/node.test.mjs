// The page on a real node with the hubspot example: what a person does on the first day.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "./browser.mjs";
import { standIns, startNode } from "./node.mjs";

if (!process.env.TAHINI) throw new Error("expected the environment variable TAHINI with the path of a built node, found none");

const PIPE = "hubspot-contacts-collect";
let outside, node, browser, page, complaints;
before(async () => {
  outside = await standIns();
  node = await startNode("hubspot");
  browser = await launch();
  ({ page, complaints } = await browser.open(node.url));
});
after(async () => {
  await browser?.close();
  await node?.stop();
  await outside?.stop();
});

const text = async (locator) => (await locator.innerText()).replaceAll(/\s+/g, " ").trim();
const row = (name) => page.getByRole("row").filter({ has: page.getByRole("link", { name, exact: true }) });
const heading = (name) => page.getByRole("heading", { name, exact: true, level: 1 }).waitFor();
const tile = (name) => page.locator(".tiles > div").filter({ hasText: name }).locator("b");
const menu = (name) => page.getByRole("navigation").getByRole("link", { name }).click();
/** Waits until the pipe's last run counted so many; the page refreshes itself. */
const ran = (kind, read, changed) => page.waitForFunction(
  (wanted) => [...document.querySelectorAll(".tiles b")].slice(0, 3).map((b) => b.textContent).join(" ") === wanted, `${kind} ${read} ${changed}`);

test("the list shows the example's pipes, and Start runs one", async () => {
  await heading("Pipes");
  assert.equal(await page.locator("#view tbody tr").count(), 3);
  assert.match(await text(row(PIPE)), /json hubspot → dataset hubspot-contacts-collect Not run yet/);
  assert.match(await text(row("hubspot-addresses")), /Endpoint/);
  await page.getByRole("button", { name: `Start ${PIPE}` }).click();
  await row(PIPE).getByText("OK", { exact: true }).waitFor();
  assert.match(await text(row(PIPE)), /OK (now|\d+ s ago) full 250 250 0/);
});

test("the pipe's page shows the run's numbers, its offset and the execution log", async () => {
  await page.getByRole("link", { name: PIPE }).click();
  await heading(PIPE);
  await ran("full", 250, 250);
  assert.equal(await text(tile("failed")), "0");
  assert.match(await text(page.locator("dl").first()), /Offset "?2024-04-03T13:30:01\.553Z"?/);
  const events = page.locator("#execution-log tbody tr");
  await events.nth(1).waitFor();
  assert.match(await text(events.nth(0)), /^(now|\d+ s ago) pump-completed full 250 250/);
  assert.match(await text(events.nth(1)), /pump-started full/);
});

test("the sink leads to the dataset and its entities", async () => {
  await page.getByRole("link", { name: `dataset ${PIPE}` }).click();
  await heading(PIPE);
  await page.getByText("250 entities, 0 deleted").waitFor();
  assert.equal(await page.locator("#view tbody tr").count(), 50);
  await page.getByLabel("Entity id").fill("5051");
  await page.getByRole("button", { name: "Look up" }).click();
  await heading("5051");
  await page.getByText("This is the whole history: 1 version.").waitFor();
});

test("an edit outside becomes a second version that shows what changed", async () => {
  await outside.edit("5051", { city: "Hamar" }, "2026-01-02T03:04:05.678Z");
  await menu("Pipes");
  await page.getByRole("link", { name: PIPE }).click();
  await page.getByRole("button", { name: "Start" }).click();
  await page.getByRole("status").getByText("run asked for").waitFor();
  await page.waitForFunction(() => document.querySelector(".tiles b")?.textContent === "incremental");
  assert.equal(await text(tile("changed")), "1");
  await menu("Datasets");
  await page.getByRole("link", { name: PIPE, exact: true }).click();
  await page.locator("#view tbody tr").first().getByRole("link", { name: "5051" }).click();
  await page.getByText("This is the whole history: 2 versions.").waitFor();
  const latest = page.locator("#versions section").first();
  assert.match(await text(latest), /Offset 250 .* latest/);
  assert.match(await text(latest.locator("ins").filter({ hasText: "Hamar" })), /"city": "Hamar"/);
  assert.doesNotMatch(await text(latest.locator("del").filter({ hasText: "city" })), /Hamar/);
});

test("a reset imports all again and writes nothing", async () => {
  await menu("Pipes");
  await page.getByRole("link", { name: PIPE }).click();
  await page.getByRole("button", { name: "Reset" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Reset" }).click();
  await page.getByText("none: the next run reads everything").waitFor();
  await page.getByRole("button", { name: "Start" }).click();
  await ran("full", 250, 0);
});

test("the microservice's status and its log", async () => {
  await menu("Systems");
  await row("hubspot").getByText("running").waitFor();
  await page.getByRole("link", { name: "hubspot" }).click();
  await heading("hubspot");
  await page.getByLabel("Log of hubspot").getByText("get_contacts").waitFor();
  assert.equal(await page.getByRole("alert").isVisible(), false);
});

test("nothing went wrong unseen", () => assert.deepEqual(complaints, []));
