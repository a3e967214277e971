// The first page: which streams there are, and where to go.

import { root } from "./whip.js";

const element = (id) => document.getElementById(id);

for (const kind of ["publish", "watch"]) {
  element(kind).addEventListener("submit", (event) => {
    event.preventDefault();
    location.assign(`${root}${kind}/${encodeURIComponent(element(`${kind}-name`).value)}`);
  });
}
element("whip-url").textContent = `${root}whip/{stream}`;
element("whep-url").textContent = `${root}whep/{stream}`;

function card({ stream, live, viewers }) {
  const item = document.createElement("li");
  const watch = document.createElement("a");
  watch.href = `${root}watch/${encodeURIComponent(stream)}`;
  watch.textContent = stream;
  const facts = document.createElement("span");
  facts.className = `quiet ${live ? "live" : "idle"}`;
  facts.textContent = `${live ? "live" : "not live"}, ${viewers === 1 ? "1 viewer" : `${viewers} viewers`}`;
  item.append(watch, facts);
  return item;
}

function show(streams, text) {
  document.body.dataset.state = "ready";
  element("streams").replaceChildren(...streams.map(card));
  element("empty").hidden = streams.length > 0;
  element("empty").textContent = text;
  const live = streams.filter((stream) => stream.live).length;
  element("count").textContent = streams.length ? `${live} live` : "";
}

/** All streams, up to 5,000: nobody reads more. `null` where the list takes a token. */
async function list() {
  const streams = [];
  let url = new URL("streams.json?limit=1000", root);
  while (url && streams.length < 5000) {
    const response = await fetch(url, { cache: "no-store" });
    if (response.status === 401) return null;
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    streams.push(...(await response.json()));
    const next = response.headers.get("Link")?.match(/<([^>]*)>;\s*rel="next"/);
    url = next && new URL(next[1], url);
  }
  return streams;
}

async function refresh() {
  try {
    const streams = await list();
    if (streams === null) {
      show([], "This server does not list its streams. Whoever knows a name can go there below.");
      return;
    }
    show(streams, "No stream yet. Publish one below and it appears here.");
  } catch {
    show([], "The server does not answer. This page tries again.");
  }
  setTimeout(refresh, 3000);
}

refresh();
