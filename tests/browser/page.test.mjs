// The page against a stand-in: what a person sees in states that a real node shows rarely.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "./browser.mjs";
import { minutesAgo, pipe, start, state } from "./stub.mjs";

let browser;
before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });

/** Opens the page on a stand-in with `node`'s state, at `hash`; everything is closed afterwards. */
async function visit(t, node, hash = "#/pipes") {
  const stub = await start(node);
  const { page, complaints } = await browser.open(stub.url + hash);
  t.after(async () => { await page.close(); await stub.stop(); assert.deepEqual(complaints, []); });
  return page;
}
const row = (page, name) => page.getByRole("row").filter({ has: page.getByRole("link", { name, exact: true }) });
const text = async (locator) => (await locator.innerText()).replaceAll(/\s+/g, " ").trim();

test("a pipe's row says its state, its last run and its lag", async (t) => {
  const page = await visit(t, state({ pipes: [
    pipe("contacts", { queues: { source: { people: 1200, towns: 34 }, dependencies: {} }, "last-run": new Date(Date.now() - 5 * 60_000).toISOString(),
      "last-run-summary": { sync_type: "full", entities_read: 2500, changed: 250, deleted: 3, failed: 0, total_time: 1.284, success: true } }),
    pipe("away", { success: false, "last-message": "no answer" }),
    pipe("asleep", { "is-disabled": true }),
    pipe("partly", { "last-run-summary": { sync_type: "full", entities_read: 150, changed: 149, deleted: 0, failed: 1, total_time: 0.5, success: true } }),
    pipe("spelt-wrong", { "is-valid-config": false, "last-run": null, "last-run-summary": null }),
  ] }));
  assert.equal(await text(row(page, "contacts")), "contacts json crm → dataset contacts OK 5 min ago full 2,500 250 3 1.3 s 1,234 Start contacts");
  assert.match(await text(row(page, "away")), /Failed/);
  assert.match(await text(row(page, "asleep")), /Disabled/);
  assert.match(await text(row(page, "partly")), /OK 1 failed 3 min ago/);
  assert.match(await text(row(page, "spelt-wrong")), /Invalid config/);
  assert.equal(await row(page, "spelt-wrong").getByRole("button").isDisabled(), true);
});

test("a change at the node is seen without a reload, and focus stays where it was", async (t) => {
  const node = state({ pipes: [pipe("contacts")] });
  const page = await visit(t, node);
  await row(page, "contacts").getByRole("button").focus();
  node.pipes[0].runtime.queues.source = 77;
  await row(page, "contacts").getByRole("cell", { name: "77", exact: true }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "BUTTON");
});

test("start and stop are one button in the list", async (t) => {
  const node = state({ pipes: [pipe("contacts")] });
  const page = await visit(t, node);
  await page.getByRole("button", { name: "Start contacts" }).click();
  await page.getByRole("button", { name: "Stop contacts" }).click();
  await page.getByRole("button", { name: "Start contacts" }).waitFor();
  assert.deepEqual(node.operations, ["contacts operation=start", "contacts operation=stop"]);
});

test("a reset asks first, and empties the offset", async (t) => {
  const node = state({ pipes: [pipe("contacts", { "last-seen": "2024-05-01" })] });
  const page = await visit(t, node, "#/pipes/contacts");
  await page.getByRole("button", { name: "Reset" }).click();
  await page.getByRole("button", { name: "Cancel" }).click();
  assert.deepEqual(node.operations, []);
  await page.getByRole("button", { name: "Reset" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Reset" }).click();
  await page.getByRole("status").getByText("contacts: reset").waitFor();
  assert.deepEqual(node.operations, ["contacts operation=update-last-seen&last-seen="]);
});

test("a pipe's page shows its last error and its execution log, newest first", async (t) => {
  const log = [
    { _id: "pump-started", _updated: 0, event_type: "pump-started", sync_type: "full", start_time: "2024-05-01T00:00:00Z" },
    { _id: "pump-failed", _updated: 1, event_type: "pump-failed", sync_type: "full", end_time: "2024-05-01T00:00:02Z", total_time: "2.0", original_error_message: "expected the end of the list, found the end of the answer" },
    { _id: "pump-completed", _updated: 2, event_type: "pump-completed", sync_type: "incremental", end_time: "2024-05-01T00:01:00Z", total_time: "0.25", processed_last_run: 4321, pipe_offset: "abc", metrics: { entities: { changes_last_run: 12 } } },
  ];
  const page = await visit(t, state({ pipes: [pipe("contacts", { success: false, "last-message": "the peer closed the connection" })], datasets: { "system:pump_execution:contacts": log } }), "#/pipes/contacts");
  assert.equal(await text(page.locator("#last-error")), "Last error the peer closed the connection");
  const rows = page.locator("#execution-log tbody tr");
  await rows.nth(2).waitFor();
  assert.match(await text(rows.nth(0)), /pump-completed incremental 4,321 12 250 ms abc/);
  assert.match(await text(rows.nth(1)), /pump-failed .* expected the end of the list, found the end of the answer/);
  assert.match(await text(rows.nth(2)), /pump-started/);
  await rows.nth(1).getByText("all of it").click();
  assert.match(await rows.nth(1).locator("pre").innerText(), /"event_type": "pump-failed"/);
});

test("a pipe's page says where its properties come from, asked for when somebody looks", async (t) => {
  const contacts = pipe("contacts");
  contacts.lineage = {
    "decided-by": [{ dataset: "people", property: "name" }],
    properties: [{ property: "label", from: [{ dataset: "people", property: "name", how: "computed" }], "decided-by": [{ dataset: "people", property: "land" }], origins: [{ end: "source", pipe: "people", property: "name", via: ["contacts"] }] }],
    others: [], complete: true,
  };
  contacts.hops = { joins: [{ dataset: "countries", by: "_S.code", entities: 1200, largest: 3, average: 1.5 }], tracked: [], warnings: ["too many"] };
  const node = state({ pipes: [contacts] });
  const page = await visit(t, node, "#/pipes/contacts");
  await page.getByRole("heading", { name: "contacts" }).waitFor();
  assert.equal(node.requests.some((request) => request.includes("lineage")), false);
  await page.getByText("Where properties come from").first().click();
  const lineage = page.locator("#lineage");
  assert.equal(await text(lineage.getByRole("row").filter({ hasText: "label" })), "label name of people, computed land of people name in what people reads");
  assert.equal(await text(lineage.getByRole("row").filter({ hasText: "countries" })), "countries _S.code 1,200 3 1.5");
  assert.match(await text(lineage), /decided by name of people.*too many/);
});

test("a pipe that feeds itself is told with the way round, as long as it does", async (t) => {
  const node = state({ pipes: [pipe("share", { "feeds-itself": { pipes: ["collect", "share"], systems: ["crm"], entities: ["17"], "all-entities": 3, rounds: 20, since: minutesAgo(4) } })] });
  const page = await visit(t, node, "#/pipes/share");
  assert.equal(await text(page.locator("#feeds-itself")), "Feeds itself collect, share through crm: 17 and 2 more went round 20 times since 4 min ago");
  node.pipes[0].runtime["feeds-itself"] = null;
  await page.locator("#feeds-itself").waitFor({ state: "detached" });
});

test("every configuration error stands on the pipe's page with its path", async (t) => {
  const page = await visit(t, state({ pipes: [pipe("contacts", { "is-valid-config": false, "config-errors": [
    { level: "error", msg: "expected a source type, found \"jsn\"; did you mean \"json\"?", elements: "$['source']['type']" },
    { level: "warning", msg: "unknown property \"colour\"", elements: "$['colour']" },
  ] })] }), "#/pipes/contacts");
  await page.getByText("did you mean \"json\"?").waitFor();
  assert.equal(await page.getByText("$['source']['type']").isVisible(), true);
  assert.equal(await page.getByText("unknown property \"colour\"").isVisible(), true);
  assert.equal(await page.getByRole("button", { name: "Start" }).isDisabled(), true);
});

const ADA = [
  { _id: "a/1 ü", _updated: 0, _ts: 1_700_000_000_000_000, name: "Ada", town: "London" },
  { _id: "b", _updated: 1, _ts: 1_700_000_001_000_000, big: { exact: "12345678901234567890123" }, price: { exact: "0.10000000000000000001" } },
  { _id: "a/1 ü", _updated: 2, _previous: 0, _ts: 1_700_000_002_000_000, name: "Ada Lovelace", list: [1] },
];

test("a dataset's entities, every digit of their numbers, and the way to one of them", async (t) => {
  const page = await visit(t, state({ datasets: { people: ADA } }), "#/datasets");
  await page.getByRole("link", { name: "people" }).click();
  await row(page, "b").waitFor();
  assert.match(await text(row(page, "b")), /\{"big":12345678901234567890123,"price":0\.10000000000000000001\}/);
  assert.equal(await row(page, "a/1 ü").count(), 1);
  await page.getByLabel("Every version").check();
  await row(page, "a/1 ü").nth(1).waitFor();
  assert.equal(await row(page, "a/1 ü").count(), 2);
  await page.getByLabel("Entity id").fill("a/1 ü");
  await page.getByRole("button", { name: "Look up" }).click();
  await page.getByRole("heading", { name: "a/1 ü", exact: true }).waitFor();
});

test("an entity's versions show what changed, what is new and what went", async (t) => {
  const page = await visit(t, state({ datasets: { people: ADA } }), "#/datasets/people/entity/a%2F1%20%C3%BC");
  await page.getByText("This is the whole history: 2 versions.").waitFor();
  const latest = page.locator("#versions section").first();
  assert.match(await text(latest), /Offset 2 .* latest/);
  assert.equal(await text(latest.getByRole("row", { name: "name" })), 'name "Ada Lovelace" "Ada"');
  assert.equal(await text(latest.getByRole("row", { name: "list" })), "list [ 1 ] new");
  assert.equal(await text(latest.getByRole("row", { name: "town" })), 'town removed "London"');
});

test("an older version that is no longer kept is said, not an error", async (t) => {
  const page = await visit(t, state({ datasets: { people: [{ ...ADA[2] }] } }), "#/datasets/people/entity/a%2F1%20%C3%BC");
  await page.getByText("Older versions are no longer kept").waitFor();
  assert.equal(await page.getByRole("alert").isVisible(), false);
});

test("a microservice shows its status and its log as text; another system its type", async (t) => {
  const page = await visit(t, state({
    systems: [{ _id: "hubspot", config: { effective: { type: "system:microservice" }, original: {} } }, { _id: "crm", config: { effective: { type: "system:url" }, original: {} } }],
    statuses: { hubspot: { state: "crashed", restarts: 3, memory_bytes: 38879232, last_exit: { code: 137, reason: "out of memory" } } }, logs: { hubspot: "GET /contacts 200\n\u001b[31m<b>not markup</b>\u001b[0m\n" },
  }), "#/systems");
  await row(page, "hubspot").getByText("crashed").waitFor();
  assert.match(await text(row(page, "crm")), /^crm system:url/);
  await page.getByRole("link", { name: "hubspot" }).click();
  await page.getByLabel("Log of hubspot").getByText("<b>not markup</b>").waitFor();
  assert.equal(await page.getByText("out of memory").isVisible(), true);
  assert.equal(await page.getByText("39 MB").isVisible(), true);
  assert.equal(await page.getByLabel("Log of hubspot").textContent(), "GET /contacts 200\n<b>not markup</b>\n");
});

test("data is text: markup in ids, values and messages makes no element", async (t) => {
  const evil = '<img src=x onerror="document.title=1">';
  const page = await visit(t, state({ pipes: [pipe(evil, { success: false, "last-message": evil })], datasets: { [evil]: [{ _id: evil, _updated: 0, [evil]: evil }] } }));
  await page.getByRole("link", { name: evil }).click();
  await page.locator("#last-error").getByText(evil).waitFor();
  await page.goto(`${page.url().split("#")[0]}#/datasets/${encodeURIComponent(evil)}/entity/${encodeURIComponent(evil)}`);
  await page.getByRole("rowheader").or(page.getByRole("cell")).filter({ hasText: evil }).first().waitFor();
  assert.equal(await page.locator("img").count(), 0);
});

test("a thousand pipes: at first 200 rows, found by the filter, shown on request", async (t) => {
  const pipes = Array.from({ length: 1000 }, (_, i) => pipe(`pipe-${String(i).padStart(4, "0")}`, { success: i % 100 !== 7 }));
  const page = await visit(t, state({ pipes }));
  const rows = page.locator("#view tbody tr");
  await rows.nth(199).waitFor();
  assert.equal(await rows.count(), 200);
  await page.getByRole("button", { name: "Show 200 more" }).click();
  assert.equal(await rows.count(), 400);
  await page.getByLabel("Filter pipes").fill("0987");
  assert.equal(await rows.count(), 1);
  await page.getByLabel("Filter pipes").fill("nothing like it");
  assert.equal(await page.getByText("None of 1,000 pipes matches.").isVisible(), true);
  await page.getByLabel("Filter pipes").fill("");
  await page.getByRole("button", { name: "Failed 10" }).click();
  assert.equal(await rows.count(), 10);
});

test("configurations of a thousand pipes are asked for once, not at every reading", async (t) => {
  const node = state({ pipes: [pipe("contacts")] });
  const page = await visit(t, node);
  await row(page, "contacts").waitFor();
  const listed = () => node.requests.filter((r) => r.startsWith("GET /api/pipes?"));
  await page.waitForFunction(() => performance.getEntriesByType("resource").filter((r) => r.name.includes("/api/pipes?")).length >= 3);
  assert.equal(listed()[0], "GET /api/pipes?fields=runtime,config");
  assert.deepEqual([...new Set(listed().slice(1))], ["GET /api/pipes?fields=runtime"]);
});

test("a node that wants a token gets one, and a refused token is said", async (t) => {
  const page = await visit(t, state({ pipes: [pipe("contacts")], token: "a.b.c" }));
  await page.getByLabel("Token").fill("wrong");
  await page.getByRole("button", { name: "Use token" }).click();
  await page.getByText("The node did not accept that token").waitFor();
  await page.getByLabel("Token").fill("Bearer a.b.c");
  await page.getByRole("button", { name: "Use token" }).click();
  await row(page, "contacts").waitFor();
  assert.equal(await page.evaluate(() => localStorage.length), 0);
  await page.reload();
  await row(page, "contacts").waitFor();
  await page.getByRole("button", { name: "Forget token" }).click();
  await page.getByLabel("Token").waitFor();
});

test("errors are said and go away when the node is well again", async (t) => {
  const node = state({ pipes: [pipe("contacts")] });
  const page = await visit(t, node);
  await row(page, "contacts").waitFor();
  node.truncate = true;
  await page.getByRole("alert").getByText("is not whole JSON").waitFor();
  assert.equal(await row(page, "contacts").isVisible(), true);
  node.truncate = false;
  await page.getByRole("alert").waitFor({ state: "hidden" });
  await page.goto(`${page.url().split("#")[0]}#/pipes/nowhere`);
  await page.getByRole("alert").getByText("there is nothing at /api/pipes/nowhere").waitFor();
});

test("a node that is gone is said", async (t) => {
  const stub = await start(state({ pipes: [pipe("contacts")] }));
  const { page } = await browser.open(stub.url);
  t.after(() => page.close());
  await row(page, "contacts").waitFor();
  await stub.stop();
  await page.getByText("The node does not answer").waitFor();
  assert.equal(await text(page.locator("#reach")), "no answer");
});

test("keyboard: skip link first, slash goes to the filter, a view's heading gets the focus", async (t) => {
  const page = await visit(t, state({ pipes: [pipe("contacts")] }));
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "filter");
  await page.getByRole("link", { name: "contacts" }).click();
  await page.waitForFunction(() => document.activeElement.tagName === "H1" && document.activeElement.textContent === "contacts");
});

for (const scheme of ["light", "dark"]) {
  test(`text stands out from its background by at least 4.5 to 1 (${scheme})`, async (t) => {
    const page = await visit(t, state({ pipes: [pipe("a"), pipe("b", { success: false }), pipe("c", { "is-disabled": true }), pipe("d", { "is-running": true })] }));
    await page.emulateMedia({ colorScheme: scheme });
    await row(page, "d").waitFor();
    assert.deepEqual(await page.evaluate(weakText), []);
  });
}

/** Runs in the page: every visible text whose contrast (WCAG 2, relative luminance) is too low. */
function weakText() {
  const rgb = (css) => css.match(/[\d.]+/g).map(Number);
  const luminance = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => sum + w * ((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))(c[i] / 255), 0);
  const backgroundOf = (el) => { for (; el; el = el.parentElement) { const c = rgb(getComputedStyle(el).backgroundColor); if (c[3] !== 0) return c; } return [255, 255, 255]; };
  const weak = [];
  for (const el of document.querySelectorAll("body *")) {
    const own = [...el.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
    if (!own || !el.checkVisibility({ visibilityProperty: true }) || el.disabled || el.closest("script, style")) continue;
    const [a, b] = [luminance(rgb(getComputedStyle(el).color)), luminance(backgroundOf(el))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) weak.push(`${el.tagName} ${el.textContent.trim().slice(0, 40)} ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
  }
  return weak;
}
