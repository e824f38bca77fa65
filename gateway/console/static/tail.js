/* The live tail: puts the lines that the server sends on top of the list, or holds them back while it is paused. */
"use strict";
(() => {
  const list = document.getElementById("lines");
  if (!list) return;
  const MOST = 500;
  const RETRY = 5_000;
  const RESTS_AFTER = 60_000;
  const button = document.getElementById("tail-pause");
  const state = document.getElementById("tail-state");
  const note = document.getElementById("tail-note");
  const count = new Intl.NumberFormat("en");
  let source = null;
  let retry = null;
  let resting = null;
  let paused = false;
  let held = [];
  let heldCount = 0;
  let leftOut = 0;

  const lines = (number) => `${count.format(number)} line${number === 1 ? "" : "s"}`;

  const tell = () => {
    const parts = [];
    if (paused) parts.push(`Paused: ${lines(heldCount)} held back${heldCount > MOST ? `, the last ${MOST} are kept` : ""}.`);
    if (leftOut) parts.push(`${lines(leftOut)} left out, for there were more than can be read: filter them.`);
    note.textContent = parts.join(" ");
    note.hidden = !parts.length;
  };

  /* Rows come with the latest first, escaped by the server. */
  const show = (rows) => {
    const drawn = document.createElement("template");
    drawn.innerHTML = rows.join("");
    list.prepend(drawn.content);
    while (list.children.length > MOST) list.lastElementChild.remove();
  };

  const take = (rows) => {
    if (!paused) return show(rows);
    held = [...rows, ...held].slice(0, MOST);
    heldCount += rows.length;
  };

  const pause = (wanted) => {
    paused = wanted;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Go on" : "Pause";
    if (!paused) {
      show(held);
      held = [];
      heldCount = 0;
      leftOut = 0;
    }
    tell();
  };

  /* After a break the latest lines come again: those that are here already are known by their key. */
  const unknown = (rows) => {
    const known = new Set([...list.children].map((row) => row.dataset.key));
    const key = (row) => /^<li[^>]* data-key="([^"]*)"/.exec(row)?.[1];
    held.forEach((row) => known.add(key(row)));
    return rows.filter((row) => !key(row) || !known.has(key(row)));
  };

  const on = (name, act) => source.addEventListener(name, (event) => {
    act(JSON.parse(event.data));
    tell();
  });

  const connect = () => {
    source = new EventSource(list.dataset.tail);
    source.onopen = () => { state.textContent = "following the log of all workers"; };
    source.onerror = () => {
      state.textContent = "connection lost, trying again";
      if (source.readyState !== EventSource.CLOSED) return;
      /* Refused: the browser would not try again by itself. */
      clearTimeout(retry);
      retry = setTimeout(refused, RETRY);
    };
    on("latest", ({ rows }) => take(unknown(rows)));
    on("lines", (batch) => {
      leftOut += batch.left_out;
      take(batch.rows);
    });
    on("lost", (batch) => { leftOut += batch.count; });
  };

  /* Ask why: the one question is answered with a sentence, or with where to show the token. */
  const refused = async () => {
    try {
      const stop = new AbortController();
      const answer = await fetch(list.dataset.tail, { headers: { Accept: "text/event-stream" }, signal: stop.signal });
      if (answer.status === 401) return location.reload();
      if (!answer.ok) state.textContent = await answer.text();
      stop.abort();
    } catch { /* Still away: the next try will tell. */ }
    connect();
  };

  button.addEventListener("click", () => pause(!paused));
  list.addEventListener("click", (event) => {
    const link = event.target.closest("li")?.querySelector("a");
    if (link && !event.target.closest("a") && getSelection().isCollapsed) link.click();
  });
  document.addEventListener("visibilitychange", () => {
    clearTimeout(resting);
    if (document.hidden) {
      resting = setTimeout(() => { source.close(); source = null; }, RESTS_AFTER);
    } else if (!source) connect();
  });
  connect();
})();
