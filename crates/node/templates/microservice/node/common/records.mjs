// The system that the service connects to: put the calls of its API in here.
//
// So that everything works before there is one, a file plays its part: a log of changes, a JSON object on each line.
// `id` says which record it is, `changed` is a number that grows with every change, and `deleted` marks one that is
// gone. The last line of an id holds.

import { createReadStream, existsSync } from "node:fs";
import { appendFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { isDeepStrictEqual } from "node:util";

export class Records {
  constructor(path) {
    this.path = path;
    // Writes wait for each other.
    this.written = Promise.resolve();
  }

  /** Every change after the number `since`, oldest first, one at a time; a real API is asked page by page. */
  async *changes(since) {
    if (!existsSync(this.path)) return;
    const file = createReadStream(this.path);
    try {
      for await (const line of createInterface({ input: file, crlfDelay: Infinity })) {
        const record = JSON.parse(line);
        if (since === undefined || record.changed > since) yield record;
      }
    } finally {
      file.destroy();
    }
  }

  /** The records of these ids as they are now, by id; without those that are gone. */
  async find(ids) {
    return (await this.look(new Set(ids))).found;
  }

  /** What is known of some ids, and the number of the last change of all. */
  async look(ids) {
    const found = new Map();
    let last = 0;
    for await (const record of this.changes()) {
      last = record.changed;
      if (!ids.has(record.id)) continue;
      if (record.deleted) found.delete(record.id);
      else found.set(record.id, record);
    }
    return { found, last };
  }

  /** Writes records by id. One that is so already is left alone: writing it would be a change. */
  write(records) {
    const before = this.written;
    const done = (async () => {
      await before;
      let { found, last } = await this.look(new Set(records.map((record) => record.id)));
      for (const record of records) {
        const known = found.get(record.id);
        if (record.deleted && !known) continue;
        if (known && isDeepStrictEqual({ ...known, changed: 0 }, { ...record, changed: 0 })) continue;
        const changed = { ...record, changed: ++last };
        await appendFile(this.path, `${JSON.stringify(changed)}\n`);
        if (record.deleted) found.delete(record.id);
        else found.set(record.id, changed);
      }
    })();
    this.written = done.catch(() => {});
    return done;
  }
}
