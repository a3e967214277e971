// How a client in a process of its own talks with the run: one line on standard input asks for its figures, one line of JSON
// answers, and the end of standard input tells it to leave. `native` add-ons may crash a process; none takes the run along.

import { createInterface } from 'node:readline';

/** The options of the client: a JSON object as its only argument. */
export const options = JSON.parse(process.argv[2]);

/** Serves `figures()` until standard input ends, then calls `leave()` and ends the process. */
export async function serve({ figures, leave }) {
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === 'figures') process.stdout.write(`${JSON.stringify(await figures())}\n`);
  }
  await leave();
  process.exit(0);
}
