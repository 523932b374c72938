// The live page: asks the proxy once a second what is in flight, and shows it without ever moving what you look at.
//
// Names in the answers come from strangers. They reach the page as textContent only.
"use strict";

const STATUS_MS = 1000;
const HISTORY_MS = 5000;
const AFTER_FAILURES_MS = [1000, 2000, 5000]; // the last one from then on
const PATIENCE_MS = 10000; // an answer that takes longer counts as none
const STILL_MS = 4000; // since somebody last pointed or typed in the list: its order keeps still for so long
const SUMMARY_MS = 15000; // between two things said to a screen reader
const SAID_MS = 6000;
const PAGE_SIZE = 100;
const FILTERED_SIZE = 1000; // the most the proxy gives: a filter looks through as much as it can get
const MOST_HOLDERS = 200; // shown of one scope
const MOST_SLOTS = 40; // drawn one by one
const NEAR = 0.75;
const NEVER = null;
const NO_KEY = [401, 403];

const $ = (id) => document.getElementById(id);

/* Small things */

const tab = {
  // What this tab keeps. A browser that forbids storage keeps it until the page is left.
  kept: new Map(),
  get(name) {
    try {
      return sessionStorage.getItem(name);
    } catch {
      return this.kept.get(name) ?? null;
    }
  },
  set(name, value) {
    try {
      if (value === null) sessionStorage.removeItem(name);
      else sessionStorage.setItem(name, value);
    } catch {
      this.kept.set(name, value);
    }
  },
};

function put(element, text) {
  const written = String(text);
  if (element.textContent !== written) element.textContent = written;
}

function attribute(element, name, value) {
  const written = String(value);
  if (element.getAttribute(name) !== written) element.setAttribute(name, written);
}

function stamp(id) {
  return $(id).content.firstElementChild.cloneNode(true);
}

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function counted(number, one, many) {
  return `${number} ${number === 1 ? one : many}`;
}

function duration(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 60) return `${seconds.toFixed(1)} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
}

function clock(date) {
  return date.toLocaleTimeString([], {
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hourCycle: "h23",
  });
}

function say(text) {
  put($("said"), text);
  clearTimeout(say.timer);
  say.timer = setTimeout(() => put($("said"), ""), SAID_MS);
}

/* Asking */

let key = tab.get("parallel_limits_key");

function ask(path, signal, options = {}) {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  return fetch(path, {
    cache: "no-store",
    ...options,
    headers: { authorization: `Bearer ${key}`, ...options.headers },
    signal: signal ? AbortSignal.any([signal, patience]) : patience,
  });
}

// Asks again when an answer is there and shown, never twice at once, and only while the tab is seen.
class Poll {
  constructor(turn) {
    this.turn = turn;
    this.current = null;
    this.timer = 0;
  }

  stop() {
    clearTimeout(this.timer);
    this.current?.abort();
    this.current = null;
  }

  async now() {
    this.stop();
    if (document.hidden || key === null) return;
    const current = (this.current = new AbortController());
    const pause = await this.turn(current.signal);
    if (this.current === current && pause !== NEVER) this.timer = setTimeout(() => this.now(), pause);
  }
}

/* The key */

function askForKey(why) {
  key = null;
  tab.set("parallel_limits_key", null);
  statusPoll.stop();
  historyPoll.stop();
  put($("why"), why);
  $("why").hidden = !why;
  $("gate").hidden = false;
  $("board").hidden = $("forget").hidden = true;
  for (const banner of $("banners").children) banner.hidden = true;
  pulse("none", "");
  clearBoard();
  $("key").value = "";
  $("key").focus();
}

function takeKey(event) {
  event.preventDefault();
  const given = $("key")
    .value.trim()
    .replace(/^Bearer\s+/i, "");
  if (!/^[\x21-\x7e]+$/.test(given)) {
    askForKey("That is not a key: it has spaces, or letters no key has.");
    return;
  }
  key = given;
  tab.set("parallel_limits_key", key);
  $("key").value = "";
  begin();
  $("main").focus({ preventScroll: true });
}

function refusedKey(code) {
  return code === 403
    ? "This key may not see what is in flight (403). Give another one."
    : `The proxy does not accept this key (${code}). Give another one.`;
}

function begin() {
  $("gate").hidden = true;
  $("forget").hidden = false;
  mayRelease = true;
  $("list").classList.remove("may-release");
  failures = 0;
  lastAnswer = null;
  pulse("none", "connecting");
  statusPoll.now();
  historyPoll.now();
}

/* The status, and what to do without */

let shown = null; // the last status
let lastAnswer = null; // when it came
let failures = 0;
let sayNext = 0;

async function statusTurn(signal) {
  const asked = query();
  let code, answer;
  try {
    const reply = await ask(`status?${asked}`, signal);
    code = reply.status;
    answer = reply.ok ? await reply.json() : null;
  } catch (error) {
    if (!signal.aborted) unreached(reason(error));
    return afterFailure();
  }
  if (signal.aborted) return NEVER;
  if (NO_KEY.includes(code)) {
    askForKey(refusedKey(code));
    return NEVER;
  }
  if (!Array.isArray(answer?.scopes)) {
    unreached(answer === null ? `HTTP ${code}` : "its answer is no status");
    return afterFailure();
  }
  reached(answer, asked);
  return STATUS_MS;
}

function query() {
  const size = $("filter").value.trim() ? FILTERED_SIZE : PAGE_SIZE;
  return String(new URLSearchParams({ sort: $("sort").value, page: list.page, page_size: size }));
}

function reason(error) {
  if (error.name === "TimeoutError") return "no answer in time";
  return error instanceof SyntaxError ? "its answer is no status" : "no connection";
}

function afterFailure() {
  return AFTER_FAILURES_MS[Math.min(failures, AFTER_FAILURES_MS.length) - 1];
}

function unreached(why) {
  failures += 1;
  lastAnswer ??= new Date();
  const then = shown ? " What you see is from then." : "";
  put($("unreached"), `The proxy is not reached since ${clock(lastAnswer)} (${why}).${then} Trying again.`);
  $("unreached").hidden = false;
  $("board").classList.add("stale");
  pulse("lost", "not reached");
}

function reached(answer, asked) {
  failures = 0;
  lastAnswer = new Date();
  $("unreached").hidden = true;
  $("board").classList.remove("stale");
  $("board").hidden = false;
  pulse("live", "live");
  show(answer, asked);
}

function pulse(state, text) {
  attribute($("pulse"), "data-state", state);
  put($("pulse"), text);
}

function show(answer, asked) {
  const pages = Math.max(1, answer.total_pages);
  if (list.page > pages) {
    list.page = pages;
    statusPoll.now();
    return;
  }
  shown = answer;
  figure("in-flight", answer.in_flight, "");
  figure("waiting", answer.waiting, answer.waiting ? "near" : "");
  figure("refused", answer.refused_lately, answer.refused_lately ? "bad" : "");
  figure("store", answer.store, answer.degraded ? "bad" : "");
  degraded(answer);
  drawList(asked);
  summarize(answer);
}

function figure(id, value, state) {
  put($(id), value);
  attribute($(id), "data-state", state);
}

function degraded({ degraded: isOut, store }) {
  $("degraded").hidden = !isOut;
  const words =
    `Degraded: the store (${store}) does not answer. The numbers are of the one worker that was asked; ` +
    "on_store_failure says who is admitted meanwhile.";
  put($("degraded"), isOut ? words : "");
}

function summarize(answer) {
  if (Date.now() < sayNext) return;
  sayNext = Date.now() + SUMMARY_MS;
  put(
    $("summary"),
    `${counted(answer.in_flight, "request", "requests")} in flight, ${answer.waiting} waiting, ` +
      `${answer.refused_lately} refused in the last minute.`,
  );
}

function clearBoard() {
  shown = past = health = null;
  list.page = 1;
  $("filter").value = "";
  sayNext = 0;
  for (const row of list.rows.values()) row.element.remove();
  list.rows.clear();
  $("past").hidden = true;
  for (const note of document.querySelectorAll(".figures small")) put(note, "");
  put($("summary"), "");
}

/* The list of scopes */

const list = { rows: new Map(), page: 1, touched: 0, asked: "" };

function isTouched() {
  return Date.now() - list.touched < STILL_MS;
}

function drawList(asked) {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = shown.scopes.filter((scope) => words.every((word) => text(scope).includes(word)));
  const rows = found.map(drawRow);
  const here = new Set(rows);
  const isSamePage = asked === list.asked;
  list.asked = asked;
  for (const row of list.rows.values()) {
    if (here.has(row)) continue;
    const isLookedAt = row.isOpen || row.hasFocus || isTouched();
    if (isSamePage && isLookedAt && words.every((word) => text(row.scope).includes(word)))
      row.gone(shown.total_pages > 1);
    else forget(row);
  }
  arrange(rows);
  sayFound(found.length, words.length > 0);
}

function text(scope) {
  const identities = Object.entries(scope.scope).flatMap(([dimension, identity]) => [
    `${dimension}=${identity}`,
    `${dimension} ${identity}`,
  ]);
  return [scope.name, ...identities].join("\n").toLowerCase();
}

function drawRow(scope) {
  let row = list.rows.get(scope.id);
  if (!row) {
    row = new Row(scope);
    list.rows.set(scope.id, row);
  }
  row.show(scope);
  return row;
}

function forget(row) {
  list.rows.delete(row.scope.id);
  row.element.remove();
}

// While somebody is in the list nothing moves in it: a row under the pointer stays under the pointer.
function arrange(rows) {
  const place = $("list");
  const order = rows.map((row) => row.element);
  const found = new Set(order);
  const rest = [...place.children].filter((element) => !found.has(element));
  if (isTouched() && place.children.length) {
    place.append(...order.filter((element) => !element.isConnected));
    return;
  }
  for (const element of rest) order.splice([...place.children].indexOf(element), 0, element);
  settle(place, order);
}

// The row that has the focus is not moved, or it would lose it: the others are moved around it.
function settle(place, order) {
  const still = order.findIndex((element) => element.contains(document.activeElement));
  for (let index = still - 1; index >= 0; index -= 1) {
    if (order[index + 1].previousElementSibling !== order[index]) order[index + 1].before(order[index]);
  }
  for (let index = still + 1; index < order.length; index += 1) {
    const previous = order[index - 1];
    if (!previous) place.prepend(order[index]);
    else if (previous.nextElementSibling !== order[index]) previous.after(order[index]);
  }
}

function sayFound(number, isFiltered) {
  const { total, total_pages: pages } = shown;
  const seen = shown.scopes.length;
  const of = pages > 1 ? `${number} of the ${seen} on this page, ${total} in all` : `${number} of ${total}`;
  put($("found"), isFiltered ? of : total || "");
  $("empty").hidden = list.rows.size > 0;
  put($("empty"), isFiltered && seen ? "No scope matches the filter." : "Nothing is in flight.");
  $("pages").hidden = pages <= 1;
  put($("page"), `Page ${list.page} of ${pages}`);
  $("previous").disabled = list.page <= 1;
  $("next").disabled = list.page >= pages;
}

function turn(page) {
  list.page = page;
  list.touched = 0;
  statusPoll.now();
}

function filter() {
  list.touched = 0;
  list.page = 1;
  if (shown) drawList(list.asked);
  if (query() !== list.asked) statusPoll.now();
}

/* One scope */

let numbered = 0;

class Row {
  constructor(scope) {
    this.element = stamp("scope-template");
    this.parts = {};
    for (const name of [
      "line",
      "open",
      "name",
      "who",
      "bar",
      "fill",
      "over",
      "count",
      "waiting",
      "refused",
      "detail",
      "holders",
    ])
      this.parts[name] = this.element.querySelector(`.${name}`);
    this.parts.table = this.element.querySelector(".table");
    this.parts.note = this.element.querySelector(".detail > .note");
    this.parts.detail.id = `scope-${(numbered += 1)}`;
    this.parts.open.setAttribute("aria-controls", this.parts.detail.id);
    this.parts.open.addEventListener("click", () => this.turn());
    this.held = new Map();
    this.name(scope);
  }

  get isOpen() {
    return !this.parts.detail.hidden;
  }

  get hasFocus() {
    return this.element.contains(document.activeElement);
  }

  turn() {
    this.parts.detail.hidden = this.isOpen;
    attribute(this.parts.open, "aria-expanded", this.isOpen);
    this.drawHolders();
  }

  name({ name, scope }) {
    put(this.parts.name, name);
    const pairs = Object.entries(scope);
    for (const [dimension, identity] of pairs) {
      const pair = make("span", "pair");
      pair.append(make("i", "", `${dimension} `), make("bdi", "", identity));
      this.parts.who.append(pair, " ");
    }
    if (!pairs.length) put(this.parts.who, "everybody");
    const whose = pairs.map(([dimension, identity]) => `${dimension} ${identity}`).join(", ") || "everybody";
    this.parts.line.title = `${name}: ${whose}`;
    attribute(this.parts.bar, "aria-label", `In flight of ${name}, ${whose}`);
  }

  show(scope) {
    this.scope = scope;
    this.isGone = this.isElsewhere = false;
    this.draw();
  }

  // Of a row that stays only because somebody looks at it.
  gone(mayBeElsewhere) {
    this.isGone = true;
    this.isElsewhere = mayBeElsewhere;
    this.scope = { ...this.scope, in_flight: 0, waiting: 0, refused_lately: 0, utilization: 0, holders: [] };
    this.draw();
  }

  draw() {
    const { in_flight: used, limit, waiting, refused_lately: refused } = this.scope;
    this.element.classList.toggle("gone", this.isGone);
    attribute(this.element, "data-state", this.isGone ? "" : state(this.scope));
    this.drawBar(used, limit);
    this.drawCount(used, limit);
    number(this.parts.waiting, waiting);
    number(this.parts.refused, refused);
    this.drawHolders();
  }

  drawBar(used, limit) {
    const { bar, fill, over } = this.parts;
    const whole = Math.max(used, limit ?? 0, 1);
    const within = Math.min(used, limit ?? 0);
    const beyond = limit === null ? 0 : used - within;
    bar.classList.toggle("unknown", limit === null);
    bar.classList.toggle("slots", whole > 1 && whole <= MOST_SLOTS && limit !== null);
    bar.style.setProperty("--slots", whole);
    fill.style.setProperty("--part", `${(100 * within) / whole}%`);
    over.style.left = `${(100 * within) / whole}%`;
    over.style.setProperty("--part", `${(100 * beyond) / whole}%`);
    attribute(bar, "aria-valuemax", whole);
    attribute(bar, "aria-valuenow", used);
    attribute(bar, "aria-valuetext", this.isElsewhere ? "not on this page" : told(used, limit));
  }

  drawCount(used, limit) {
    const { count } = this.parts;
    const written = this.isElsewhere ? "–" : told(used, limit);
    if (count.dataset.written === written) return;
    count.dataset.written = written;
    count.replaceChildren(make("b", "", this.isElsewhere ? "–" : used));
    if (this.isElsewhere) return;
    count.append(make("i", "", ` of ${limit ?? "?"}`));
    if (limit === 0) count.append(" ", make("i", "aside", "blocked"));
    if (limit !== null && used > limit) count.append(" ", make("em", "", `${used - limit} over`));
  }

  drawHolders() {
    if (!this.isOpen) return;
    const holders = this.scope.holders.slice(0, MOST_HOLDERS);
    const leases = new Set(holders.map((holder) => holder.lease));
    for (const [lease, holder] of this.held) {
      if (leases.has(lease)) continue;
      if (holder.element.contains(document.activeElement)) this.parts.open.focus({ preventScroll: true });
      holder.element.remove();
      this.held.delete(lease);
    }
    holders.forEach((holder) => this.drawHolder(holder));
    this.parts.table.hidden = !holders.length;
    put(this.parts.note, this.note(holders.length));
  }

  drawHolder(holder) {
    let line = this.held.get(holder.lease);
    if (!line) {
      line = new HolderLine(holder);
      this.held.set(holder.lease, line);
      this.parts.holders.append(line.element);
    }
    line.show(holder);
  }

  note(number) {
    if (this.isElsewhere) return "Not on this page any more, or nothing is in flight.";
    if (!this.scope.in_flight)
      return this.scope.waiting ? "Nothing is in flight; some are waiting." : "Nothing is in flight.";
    if (!number) return "Who holds this is shown to admins, and to whose requests they are.";
    const more = this.scope.holders.length - number;
    return more > 0 ? `The ${number} oldest; ${more} more are in flight.` : "";
  }
}

function state({ in_flight: used, limit, utilization }) {
  if (limit !== null && used > limit) return "over";
  if (utilization === null) return "";
  if (utilization >= 1) return "full";
  return utilization >= NEAR ? "near" : "";
}

function told(used, limit) {
  if (limit === null) return `${used}, limit unknown`;
  return used > limit ? `${used} of ${limit}, ${used - limit} over` : `${used} of ${limit}`;
}

function number(element, value) {
  put(element.firstElementChild, value);
  element.classList.toggle("zero", !value);
}

/* One holder, and its release by hand */

let mayRelease = true; // until the proxy says otherwise

class HolderLine {
  constructor(holder) {
    this.element = stamp("holder-template");
    this.age = this.element.querySelector(".age");
    put(this.element.querySelector(".model bdi"), holder.model);
    put(this.element.querySelector(".worker bdi"), holder.worker);
    put(this.element.querySelector(".lease bdi"), holder.lease);
    this.element.querySelector(".act").append(releaseControl(holder));
  }

  show(holder) {
    put(this.age, duration(holder.age_seconds));
  }
}

function releaseControl({ lease, model }) {
  const control = stamp("release-template");
  const [first, confirm, yes, no] = [".first", ".confirm", ".yes", ".no"].map((part) =>
    control.querySelector(part),
  );
  const ofWhat = `lease ${lease} of ${model}`;
  first.setAttribute("aria-label", `Release ${ofWhat}`);
  confirm.setAttribute("aria-label", `Release ${ofWhat}?`);
  put(control.querySelector(".question"), "It goes on, uncounted.");
  const opened = (isOpen) => {
    first.hidden = isOpen;
    confirm.hidden = !isOpen;
    (isOpen ? no : first).focus({ preventScroll: true });
  };
  first.addEventListener("click", () => opened(true));
  no.addEventListener("click", () => opened(false));
  confirm.addEventListener("keydown", (event) => event.key === "Escape" && opened(false));
  let isAsked = false;
  yes.addEventListener("click", async () => {
    if (isAsked) return;
    isAsked = true;
    isAsked = await release(lease);
    if (!isAsked && control.isConnected) opened(false);
  });
  return control;
}

async function release(lease) {
  try {
    const reply = await ask("release", null, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ lease }),
    });
    await releaseAnswered(reply, lease);
    return reply.ok;
  } catch {
    say("Not released: the proxy is not reached.");
    return false;
  }
}

async function releaseAnswered(reply, lease) {
  if (reply.ok) say(`Released ${lease}: ${counted((await reply.json()).released, "slot", "slots")}.`);
  else if (reply.status === 404) say("It had ended by itself.");
  else if (NO_KEY.includes(reply.status)) forbidRelease("This key may not release.");
  else say(`Not released (HTTP ${reply.status}).`);
  statusPoll.now();
}

function forbidRelease(why) {
  if (why) say(why);
  mayRelease = false;
  allowRelease();
}

function allowRelease() {
  $("list").classList.toggle("may-release", mayRelease);
}

/* The last fifteen minutes */

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 30;
const BARS = 34; // pixels, of refusals
const BETWEEN = 16;
const BELOW = 20; // for the times

let past = null;
let health = null;

async function historyTurn(signal) {
  try {
    const reply = await ask("history", signal);
    if (NO_KEY.includes(reply.status)) {
      $("past").hidden = true;
      forbidRelease("");
      return NEVER;
    }
    if (reply.ok) showHistory(await reply.json());
    const healthy = await ask("health", signal);
    showHealth(healthy.ok ? await healthy.json() : null);
  } catch {
    // The status says that the proxy is not reached, and since when.
  }
  return HISTORY_MS;
}

function showHistory(answer) {
  past = answer;
  $("past").hidden = false;
  allowRelease();
  offerLimits(Object.keys(answer.limits).sort());
  drawChart();
}

function showHealth(answer) {
  health = answer;
  const parts = [];
  if (answer) parts.push(counted(answer.workers, "worker", "workers"));
  if (answer?.store_ms != null) parts.push(`${answer.store_ms} ms`);
  if (answer?.degraded_seconds != null) parts.push(`out for ${duration(answer.degraded_seconds)}`);
  put($("store-note"), parts.join(" · "));
}

function offerLimits(names) {
  const select = $("limit");
  const offered = new Set([...select.options].map((option) => option.value));
  for (const name of names) {
    if (!offered.has(name)) select.append(new Option(name, name));
  }
  for (const option of [...select.options]) {
    if (option.value && !option.selected && !names.includes(option.value)) option.remove();
  }
}

function series() {
  const none = past.in_flight.map(() => 0);
  const chosen = $("limit").value;
  return chosen ? (past.limits[chosen] ?? { in_flight: none, refused: none }) : past;
}

function drawChart() {
  if (!past || $("past").hidden) return;
  const { in_flight: used, refused } = series();
  const box = { width: $("chart").clientWidth, height: $("chart").clientHeight };
  const most = nice(Math.max(...used, 1));
  const total = refused.reduce((sum, one) => sum + one, 0);
  const svg = draw("svg", { width: box.width, height: box.height, role: "img" });
  svg.setAttribute("aria-label", inWords(used, total));
  const plot = {
    x: (index) => LEFT + ((index + 0.5) * (box.width - LEFT)) / used.length,
    y: (value) =>
      box.height - BELOW - BARS - BETWEEN - (value / most) * (box.height - BELOW - BARS - BETWEEN - 8),
    bottom: box.height - BELOW,
    step: (box.width - LEFT) / used.length,
    width: box.width,
  };
  grid(svg, plot, most);
  curve(svg, plot, used);
  bars(svg, plot, refused);
  svg.append(
    draw("line", { class: "hair", id: "hair", y1: plot.y(most), y2: plot.bottom, visibility: "hidden" }),
  );
  $("chart").replaceChildren(svg);
  readOut();
  if (!$("limit").value) {
    put($("in-flight-note"), `peak ${rounded(Math.max(...used, shown?.in_flight ?? 0))} in 15 min`);
    put($("refused-note"), `${total} in 15 min`);
  }
}

function inWords(used, total) {
  const name = $("limit").value;
  return (
    `In flight${name ? ` in ${name}` : ""} over the last 15 minutes: lately ${rounded(used.at(-1))}, ` +
    `at most ${rounded(Math.max(...used))}; ${total} refused.`
  );
}

function draw(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function label(x, y, anchor, words) {
  const element = draw("text", { x, y, "text-anchor": anchor });
  element.textContent = words;
  return element;
}

// Of which half is a round number, too.
function nice(value) {
  const power = 10 ** Math.max(0, Math.floor(Math.log10(value)));
  const factors = power === 1 ? [2, 4, 6, 8, 10] : [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10];
  return factors.find((factor) => factor * power >= value) * power;
}

function rounded(value) {
  return Number(value.toFixed(value < 10 ? 1 : 0));
}

function grid(svg, plot, most) {
  for (const value of [0, most / 2, most]) {
    const y = Math.round(plot.y(value)) + 0.5;
    svg.append(draw("line", { class: value ? "grid" : "base", x1: LEFT, x2: plot.width, y1: y, y2: y }));
    svg.append(label(LEFT - 8, y + 4, "end", rounded(value)));
  }
  svg.append(
    draw("line", { class: "base", x1: LEFT, x2: plot.width, y1: plot.bottom + 0.5, y2: plot.bottom + 0.5 }),
  );
  const whole = Math.round((past.in_flight.length * past.step_seconds) / 60);
  for (const part of [0, 1, 2, 3]) {
    const minutes = Math.round(whole * (1 - part / 3));
    const words = minutes ? `${minutes} min ago` : "now";
    const x = LEFT + ((plot.width - LEFT) * part) / 3;
    svg.append(label(x, plot.bottom + 15, ["start", "middle", "middle", "end"][part], words));
  }
}

function curve(svg, plot, used) {
  const points = used
    .map((value, index) => `${plot.x(index).toFixed(1)},${plot.y(value).toFixed(1)}`)
    .join("L");
  const [first, last, zero] = [plot.x(0), plot.x(used.length - 1), plot.y(0)];
  svg.append(draw("path", { class: "area", d: `M${first},${zero}L${points}L${last},${zero}Z` }));
  svg.append(draw("path", { class: "curve", d: `M${points}` }));
}

function bars(svg, plot, refused) {
  const most = Math.max(...refused, 1);
  refused.forEach((value, index) => {
    if (!value) return;
    const height = Math.max(2, (value / most) * BARS);
    const width = Math.max(1, plot.step - 1);
    const x = plot.x(index) - width / 2;
    svg.append(draw("rect", { class: "refusal", x, y: plot.bottom - height, width, height }));
  });
  if (refused.some(Boolean)) svg.append(label(LEFT - 8, plot.bottom - BARS + 10, "end", most));
}

let pointed = null; // where over the chart the pointer is, from 0 to 1

function readOut() {
  const hair = $("hair");
  if (!past || !hair) return;
  const { in_flight: used, refused } = series();
  const index = pointed === null ? null : Math.floor(pointed * used.length);
  hair.setAttribute("visibility", index === null ? "hidden" : "visible");
  if (index === null) {
    put($("readout"), "in flight, and below it refused");
    return;
  }
  const x = LEFT + ((index + 0.5) * ($("chart").clientWidth - LEFT)) / used.length;
  hair.setAttribute("x1", x);
  hair.setAttribute("x2", x);
  const when = new Date(Date.now() - (used.length - index) * past.step_seconds * 1000);
  put($("readout"), `${clock(when)}: ${rounded(used[index])} in flight, ${refused[index]} refused`);
}

function pointAt(event) {
  const box = $("chart").getBoundingClientRect();
  const part = (event.clientX - box.left - LEFT) / (box.width - LEFT);
  pointed = part >= 0 && part < 1 ? part : null;
  readOut();
}

/* Light and dark */

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const chosen = tab.get("parallel_limits_theme");
  return chosen ? chosen === "dark" : prefersDark.matches;
}

function applyTheme() {
  const chosen = tab.get("parallel_limits_theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  attribute($("theme"), "aria-pressed", isDark());
}

function turnTheme() {
  tab.set("parallel_limits_theme", isDark() ? "light" : "dark");
  applyTheme();
}

/* Beginning */

const statusPoll = new Poll(statusTurn);
const historyPoll = new Poll(historyTurn);

function wire() {
  $("gate").addEventListener("submit", takeKey);
  $("forget").addEventListener("click", () => askForKey(""));
  $("theme").addEventListener("click", turnTheme);
  prefersDark.addEventListener("change", applyTheme);
  $("filter").addEventListener("input", filter);
  $("sort").addEventListener("change", () => turn(1));
  $("previous").addEventListener("click", () => turn(list.page - 1));
  $("next").addEventListener("click", () => turn(list.page + 1));
  $("limit").addEventListener("change", drawChart);
  $("chart").addEventListener("pointermove", pointAt);
  $("chart").addEventListener("pointerleave", () => ((pointed = null), readOut()));
  new ResizeObserver(drawChart).observe($("chart"));
  for (const kind of ["pointermove", "pointerdown", "keydown"])
    $("list").addEventListener(kind, () => (list.touched = Date.now()), { passive: true });
  document.addEventListener("visibilitychange", () => {
    for (const poll of [statusPoll, historyPoll]) {
      if (document.hidden) poll.stop();
      else poll.now();
    }
  });
}

applyTheme();
wire();
if (key === null) askForKey("");
else begin();
