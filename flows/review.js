// The page of `evergreen review`. The next pictures are loaded and decoded ahead, so that a key shows the next one at once; decisions are
// sent one after the other behind it, and what could not be sent is kept and sent again.
"use strict";

const AHEAD = 8; // items that are kept ready
const REFILL = 5; // fewer than so many: ask for more
const WITH_THUMBNAILS = 3; // of them, those whose look-alikes are loaded too
const RETRY_MILLISECONDS = 1500;

const byId = (id) => document.getElementById(id);
const token = document.querySelector("meta[name=evergreen-token]").content;
const labelButtons = [...document.querySelectorAll("button.label")];
const queueButtons = [...document.querySelectorAll("button.queue")];

let queue = "";
let visit = 0; // counts the queues that were opened, so that a late answer to an earlier one is not used
let ready = []; // the items ahead; the first one is shown
let sent = new Set(); // items that were decided here and must not come again, until they are undone
let unsent = []; // actions that the server does not have yet, oldest first
let sending = false;
let refilling = false;
let exhausted = false; // the server has no more items than those in `ready`
let heatOn = false;

// Talking to the server

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", "X-Evergreen-Token": token },
  };
  const answer = await fetch(path, { cache: "no-store", credentials: "same-origin", ...options });
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const error = new Error(found.error || `The server answered ${answer.status}.`);
    error.answered = true;
    error.gone = found.gone === true;
    throw error;
  }
  return found;
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// Sends the actions one after the other. Where the server is away, they stay and are tried again.
async function send() {
  if (sending) return;
  sending = true;
  while (unsent.length) {
    const action = unsent[0];
    try {
      const answer = await ask(`/queue/${action.queue}/decide`, action.body);
      unsent.shift();
      problem("");
      action.done(answer);
    } catch (error) {
      if (error.answered) {
        unsent.shift();
        action.failed(error);
      } else {
        away();
        await pause(RETRY_MILLISECONDS);
      }
    }
  }
  sending = false;
}

let isAway = false; // the page says that the server does not answer

function answers() {
  if (isAway) problem("");
  isAway = false;
}

function away() {
  isAway = true;
  const kept = unsent.length ? `: ${many(unsent.length, "decision is", "decisions are")} not saved yet. Keep this page open and start` : ". Start";
  problem(`The server does not answer${kept} it again: evergreen review ${document.body.dataset.scenario}`);
}

// The id tells the server that an action which is sent again, since its answer was lost, is the same.
function act(body, done, failed) {
  unsent.push({ queue, body: { ...body, request: crypto.randomUUID() }, done, failed });
  send();
}

// Items ahead

function addresses(item) {
  return {
    picture: `/picture?item=${encodeURIComponent(item.item)}`,
    small: (id) => `/picture?small&item=${encodeURIComponent(id)}`,
    heat: (label) => `/heat-map?item=${encodeURIComponent(item.item)}&label=${encodeURIComponent(label)}`,
  };
}

// Loads the picture of an item; `image` is replaced by null if it can't be shown.
function load(item) {
  if (item.problem) return item; // the server would refuse it
  const image = new Image();
  image.alt = "";
  image.src = addresses(item).picture;
  item.image = image;
  item.loaded = image.decode().then(
    () => image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) <= 96),
    () => { item.image = null; },
  );
  return item;
}

function loadThumbnails() {
  for (const item of ready.slice(0, WITH_THUMBNAILS)) {
    item.thumbnails ??= item.similar.map(([id, label]) => {
      const image = new Image();
      image.alt = "";
      image.src = addresses(item).small(id);
      return { image, label };
    });
  }
}

async function refill() {
  if (refilling) return;
  refilling = true;
  while (ready.length < REFILL && !exhausted) {
    const mine = visit;
    try {
      const without = [...ready.map((one) => one.item), ...unsent.map((one) => one.body.item).filter(Boolean)];
      const found = await ask(`/queue/${queue}/upcoming`, { count: AHEAD, without });
      if (mine !== visit) continue; // another queue was opened meanwhile
      answers();
      if (found.preparing) { // the server was started again
        await pause(RETRY_MILLISECONDS);
        continue;
      }
      const known = new Set([...ready.map((one) => one.item), ...sent]);
      const fresh = found.items.filter((one) => !known.has(one.item));
      exhausted = fresh.length === 0;
      const wasEmpty = ready.length === 0;
      ready.push(...fresh.map(load));
      if (wasEmpty) show();
      loadThumbnails();
    } catch (error) {
      if (mine !== visit) continue;
      if (error.answered) problem(error.message);
      else away();
      await pause(RETRY_MILLISECONDS);
    }
  }
  refilling = false;
}

// What is shown

const many = (count, one, several) => `${count.toLocaleString("en")} ${count === 1 ? one : several}`;
const percent = (value) => `${(100 * value).toFixed(value > 0.0995 && value < 0.9995 ? 0 : 1)} %`;

function problem(text) {
  if (byId("problem").textContent !== text) byId("problem").textContent = text;
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Shows one of the three sections.
function section(id) {
  for (const one of ["waiting", "finished", "work"]) byId(one).hidden = one !== id;
}

function show() {
  const item = ready[0];
  if (!item) {
    if (exhausted) finish();
    else section("waiting");
    return;
  }
  section("work");
  const picture = byId("picture");
  if (item.image) {
    item.image.alt = item.label === null ? "The item" : `An item labelled ${item.label}`;
    picture.replaceChildren(item.image);
  } else {
    picture.replaceChildren(element("p", item.problem ? `This item can't be used: ${item.problem}. Skip it, or look at the file.`
      : "This item can't be shown. Skip it, or look at the file."));
  }
  performance.mark("evergreen-shown");
  item.loaded?.then(() => { if (ready[0] === item && !item.image) show(); });
  byId("source").textContent = item.source;
  const says = item.suggestion ? `suggested: ${item.suggestion.label}, ${percent(item.suggestion.probabilities[0][1])}` : "no suggestion";
  byId("facts-label").textContent = item.label === null ? `No label yet; ${says}` : `Label: ${item.label}; ${says}`;
  const offered = offer(item);
  byId("keep").disabled = offered === null;
  byId("keep-text").textContent = offered === null ? "Take the suggestion" : item.label === null ? `Take “${offered}”` : `Keep “${offered}”`;
  showSuggestion(item);
  showSimilar(item);
  showHeat();
}

// The label that Enter gives: the one that the item has, or else the suggested one.
function offer(item) {
  return item.label ?? item.suggestion?.label ?? null;
}

function showSuggestion(item) {
  const place = byId("suggestion");
  if (!item.suggestion) {
    place.replaceChildren(element("p", "No suggestion."));
    return;
  }
  const table = element("table", "");
  table.append(element("caption", item.suggestion.by));
  for (const [position, [label, probability]] of item.suggestion.probabilities.entries()) {
    const row = element("tr", "", position ? {} : { class: "first" });
    const bar = element("td", "");
    bar.append(element("meter", percent(probability), { min: 0, max: 1, value: probability, "aria-hidden": "true" }));
    row.append(element("th", label, { scope: "row" }), bar, element("td", percent(probability)));
    table.append(row);
  }
  place.replaceChildren(table);
}

function showSimilar(item) {
  byId("similar").hidden = item.similar.length === 0;
  loadThumbnails();
  byId("similar-list").replaceChildren(...(item.thumbnails ?? []).map(({ image, label }) => {
    const entry = element("li", "", label === item.label ? {} : { class: "other" });
    entry.append(image, element("span", label));
    return entry;
  }));
}

function showHeat() {
  byId("heat").setAttribute("aria-pressed", String(heatOn));
  byId("legend").hidden = !heatOn;
  byId("heat-state").textContent = "";
  byId("picture").querySelector("img.heat")?.remove();
  if (!heatOn) return;
  for (const item of ready.slice(0, 2).reverse()) { // the one that is shown is asked for last, and so computed first
    if (!item.suggestion || item.heat) continue;
    const image = new Image();
    image.alt = "";
    image.className = "heat";
    image.src = addresses(item).heat(item.suggestion.label);
    item.heat = image;
    image.decode().then(() => { if (heatOn && ready[0] === item) putHeat(item); }, () => {
      item.heat = undefined;
      if (heatOn && ready[0] === item) byId("heat-state").textContent = "There is no heat map of this item.";
    });
  }
  const item = ready[0];
  if (item?.heat?.complete && item.heat.naturalWidth) putHeat(item);
  else if (item) byId("heat-state").textContent = item.suggestion ? "The heat map is being computed …" : "There is no heat map without a suggestion.";
}

function putHeat(item) {
  byId("picture").append(item.heat);
  byId("heat-state").textContent = `Heat map for “${item.suggestion.label}”`;
}

function showProgress(left, tally) {
  if (left === null) return; // it was started again, and is not ready yet
  const waiting = [
    tally.corrections ? many(tally.corrections, "correction", "corrections") : "",
    tally.files ? many(tally.files, "new item", "new items") : "",
  ].filter(Boolean).join(" and ");
  byId("progress").textContent = `${tally.decided.toLocaleString("en")} decided, ${left.toLocaleString("en")} left` +
    (waiting ? `; ${waiting} in the inbox` : "");
  byId("show-skipped").hidden = tally.skipped === 0;
  byId("show-skipped").textContent = `Show the ${many(tally.skipped, "skipped one", "skipped ones")} again`;
}

function finish() {
  const chosen = queueButtons.find((one) => one.dataset.queue === queue);
  section("finished");
  byId("finished-title").textContent = sent.size ? "Done: this queue is empty." : "There is nothing to decide here.";
  byId("finished-text").textContent = sent.size ? "" : chosen.dataset.empty;
  byId("finished").focus();
}

// What a person does

function next(message) {
  sent.add(ready[0].item);
  ready.shift();
  show();
  if (!byId("work").hidden) byId("stage").focus({ preventScroll: true });
  byId("message").textContent = message;
  refill();
}

// Takes an item back that the server has refused, unless another queue was opened meanwhile, or the item is gone.
function takeBack(item) {
  const mine = visit;
  return (error) => {
    problem(error.message);
    if (mine !== visit) return;
    sent.delete(item.item);
    if (error.gone) {
      exhausted = false; // another file may have its name now
      refill();
      return;
    }
    if (ready[0] !== item) ready.unshift(item);
    show();
  };
}

const after = (answer) => showProgress(answer.left, answer.tally);

function give(label) {
  const item = ready[0];
  if (!item || byId("work").hidden) return;
  const kept = label === item.label;
  act({ action: "label", item: item.item, label }, after, takeBack(item));
  next(kept ? `Kept: ${label}.` : item.label === null ? `Labelled: ${label}.` : `Changed: ${label} instead of ${item.label}.`);
}

function skip() {
  const item = ready[0];
  if (!item || byId("work").hidden) return;
  act({ action: "skip", item: item.item }, after, takeBack(item));
  next("Skipped.");
}

function undo() {
  const mine = visit;
  act({ action: "undo" }, (answer) => {
    if (mine !== visit) return;
    after(answer);
    sent.delete(answer.again.item);
    ready = ready.filter((one) => one.item !== answer.again.item);
    ready.unshift(load(answer.again));
    exhausted = false;
    show();
    byId("stage").focus({ preventScroll: true });
    byId("message").textContent = "Undone: the last item is here again.";
    refill();
  }, (error) => { byId("message").textContent = error.message; });
}

function toggleHeat() {
  heatOn = !heatOn;
  showHeat();
  byId("message").textContent = heatOn ? "Heat maps are shown." : "Heat maps are hidden.";
}

// Queues

async function open(name) {
  const mine = ++visit;
  queue = name;
  ready = [];
  sent = new Set();
  exhausted = false;
  for (const one of queueButtons) one.setAttribute("aria-pressed", String(one.dataset.queue === name));
  byId("about").textContent = queueButtons.find((one) => one.dataset.queue === name).dataset.about;
  byId("progress").textContent = "";
  byId("message").textContent = "";
  problem("");
  section("waiting");
  while (mine === visit) {
    let found;
    try {
      found = await ask(`/queue/${name}`);
    } catch (error) {
      if (mine === visit) {
        if (error.answered) problem(error.message);
        else away();
      }
      await pause(RETRY_MILLISECONDS);
      continue;
    }
    if (mine !== visit) return;
    if (found.state === "ready") {
      isAway = false;
      problem(found.no_champion && name === "inbox" ? `There are no suggestions: ${found.no_champion}` : "");
      showProgress(found.left, found.tally);
      await refill();
      return;
    }
    if (found.state === "unavailable") {
      section("finished");
      byId("finished-title").textContent = "This queue is not available.";
      byId("finished-text").textContent = found.reason;
      return;
    }
    byId("waiting-text").textContent = `${found.doing || "Looking at the items"} …`;
    if (found.fraction === null) byId("waiting-bar").removeAttribute("value");
    else byId("waiting-bar").value = found.fraction;
    await pause(250);
  }
}

async function reopen(action) {
  const name = queue;
  try {
    await ask(`/queue/${name}/decide`, { action });
  } catch (error) {
    if (error.answered && action !== "again") problem(error.message);
  }
  open(name);
}

// Keys

const keys = new Map(labelButtons.filter((one) => one.dataset.key).map((one) => [one.dataset.key, one.dataset.label]));

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
  if (!byId("shortcuts").checked || event.target.closest("input, select, textarea")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const onButton = event.target.closest("button");
  if (key === "Enter" && onButton) return; // it presses the button
  const item = ready[0];
  const act_ = keys.has(key) ? () => give(keys.get(key))
    : key === "Enter" && item && offer(item) !== null ? () => give(offer(item))
    : { s: skip, u: undo, h: toggleHeat }[key];
  if (!act_) return;
  event.preventDefault();
  act_();
}

document.addEventListener("keydown", onKey);
for (const one of labelButtons) one.addEventListener("click", () => give(one.dataset.label));
for (const one of queueButtons) one.addEventListener("click", () => open(one.dataset.queue));
byId("keep").addEventListener("click", () => { if (ready[0] && offer(ready[0]) !== null) give(offer(ready[0])); });
byId("skip").addEventListener("click", skip);
byId("undo").addEventListener("click", undo);
byId("heat").addEventListener("click", toggleHeat);
byId("show-skipped").addEventListener("click", () => reopen("show-skipped"));
byId("look-again").addEventListener("click", () => reopen("again"));
window.addEventListener("beforeunload", (event) => { if (unsent.length) event.preventDefault(); });
history.replaceState(null, "", "/"); // the token need not stay in the address
open(document.body.dataset.queue);
