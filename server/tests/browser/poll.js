// Waiting for something without sleeping for longer than it takes.

const delay = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Calls `probe` until it returns something true, and returns that. An error in `probe` counts as "not yet", unless it is
 * marked `final`; the last one is told when the time is up.
 */
export async function poll(what, probe, { timeout = 10_000, every = 50 } = {}) {
  const deadline = Date.now() + timeout;
  for (let last; ; ) {
    try {
      const result = await probe();
      if (result) return result;
      last = undefined;
    } catch (error) {
      if (error.final) throw error;
      last = error;
    }
    if (Date.now() > deadline) {
      throw new Error(`waited ${timeout} ms in vain for ${what}${last ? `: ${last.message}` : ''}`);
    }
    await delay(every);
  }
}

/** Takes two samples `ms` apart. */
export async function overTime(ms, sample) {
  const first = await sample();
  await delay(ms);
  return [first, await sample()];
}

/** Takes a sample every `every` ms for `ms`. */
export async function series(ms, every, sample) {
  const taken = [];
  for (const end = Date.now() + ms; Date.now() < end; await delay(every)) taken.push(await sample());
  return taken;
}
