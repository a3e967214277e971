// Whether the machine has another network than the one that a connection was made over. Browsers do not tell their pages: a page sees
// that nothing comes any more, and looks for an address that was not there before.

/** How often it is looked whether anything came, and how long nothing may come, in ms: feedback and media come every 100 ms. */
const LOOK = 150;
const STALL = 250;
/** How long the browser is given to name the machine's addresses, in ms. */
const GATHERING = 250;
/** While nothing comes and no address is new, looks become as rare as this, in ms: the source may just be silent. */
const LONGEST_PAUSE = 4_000;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The addresses of the machine, or the names that stand for them where a page may not see them; at once if one of them `isNew`. */
async function localAddresses(isNew) {
  const addresses = new Set();
  const pc = new RTCPeerConnection();
  try {
    const gathered = new Promise((resolve) => {
      pc.addEventListener("icecandidate", ({ candidate }) => {
        const address = candidate?.candidate.split(" ")[4];
        if (address) addresses.add(address);
        if (!candidate || (address && isNew(address))) resolve();
      });
    });
    pc.createDataChannel("");
    await pc.setLocalDescription();
    await Promise.race([gathered, sleep(GATHERING)]);
  } finally {
    pc.close();
  }
  return addresses;
}

async function bytesReceived(pc) {
  const reports = await pc.getStats();
  return [...reports.values()].find(({ type }) => type === "transport")?.bytesReceived ?? 0;
}

/**
 * Calls `changed` when nothing comes over `pc` any more and the machine has an address in another network, until `signal`. It is to
 * return whether it did something about it.
 */
export async function watchNetwork(pc, changed, signal) {
  // Addresses of the network that carries the connection. Browsers name those of a lost one for some seconds more: after a change only
  // what was new then counts. `tried` are those that brought nothing: a source that is silent is no reason to try them again.
  let [own, tried, bytes, since, pause] = [null, new Set(), 0, performance.now(), LOOK];
  while (!signal.aborted) {
    await sleep(pause);
    if (signal.aborted || pc.connectionState === "closed") return;
    const received = await bytesReceived(pc).catch(() => bytes);
    if (received !== bytes) {
      [bytes, since, pause] = [received, performance.now(), LOOK];
      tried.clear();
      own ??= await localAddresses(() => false);
    } else if (own && performance.now() - since >= STALL) {
      const isNew = (address) => !own.has(address) && !tried.has(address);
      const found = new Set([...(await localAddresses(isNew))].filter(isNew));
      if (found.size && changed()) {
        for (const address of [...own, ...found]) tried.add(address);
        own = found;
      }
      pause = Math.min(pause * 1.5, LONGEST_PAUSE);
    }
  }
}
