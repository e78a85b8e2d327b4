// Starts the browser the way every test needs it, and fails on what a person would not see:
// an uncaught error, or something that the page's Content-Security-Policy forbids.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export async function launch() {
  const profile = mkdtempSync(join(tmpdir(), "tahini-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", headless: true, args: FLAGS, viewport: { width: 1280, height: 900 },
  });
  context.setDefaultTimeout(30_000);
  return {
    /** A fresh page at `url`; `complaints` collects what went wrong unseen. */
    async open(url) {
      const page = await context.newPage();
      const complaints = [];
      page.on("pageerror", (error) => complaints.push(`uncaught: ${error.message}`));
      page.on("console", (message) => { if (/Content Security Policy/.test(message.text())) complaints.push(message.text()); });
      await page.goto(url);
      return { page, complaints };
    },
    async close() {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}
