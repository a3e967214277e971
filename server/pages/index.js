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

async function refresh() {
  try {
    const response = await fetch(`${root}streams.json`, { cache: "no-store" });
    if (response.status === 401) {
      show([], "This server does not list its streams. Whoever knows a name can go there below.");
      return;
    }
    show(await response.json(), "No stream yet. Publish one below and it appears here.");
  } catch {
    show([], "The server does not answer. This page tries again.");
  }
  setTimeout(refresh, 3000);
}

refresh();
