// The page: what is typed becomes requests, and what comes back is shown. It talks to its own hub only.

import { Chart } from "./chart.js";
import { curlPublish, curlSubscribe } from "./curl.js";
import { Stream } from "./stream.js";
import { examine, parse, reasons } from "./token.js";

/** Events that stay on the page. */
const KEPT = 200;

const by = (id) => document.getElementById(id);
// Relative to the page, whatever a proxy has put before it: never another origin.
const hub = new URL("..", location.href);
hub.pathname = hub.pathname.replace(/\/$/, "");
const chart = new Chart(by("chart"), by("chart-text"));
/** Of what was published here: when (milliseconds), by id, until it has come. */
const published = new Map();
/** When events came, by id: the hub's answer to a publication may come after its event. */
const received = new Map();
let stream = null;

const lines = (id) => by(id).value.split("\n").map((line) => line.trim()).filter(Boolean);
const now = () => Date.now() / 1000;

function list(target, items) {
  target.replaceChildren(
    ...items.map(({ bad = false, text }) => {
      const item = document.createElement("li");
      item.className = bad ? "bad" : "";
      item.textContent = text;
      return item;
    }),
  );
}

const choice = () => document.querySelector("input[name=credentials]:checked").value;

function pasted() {
  try {
    return parse(by("token").value);
  } catch {
    return null;
  }
}

/** What goes along with a request. Nothing of this browser does unless it is asked for. */
function authorization() {
  const token = by("token").value.trim();
  const headers = choice() === "token" && token ? { Authorization: `Bearer ${token}` } : {};
  return { headers, credentials: choice() === "cookie" ? "same-origin" : "omit" };
}

/** Says what was refused, and why as far as this page can tell. */
function refused(target, status, body, action, topics) {
  const sent = choice() === "token" ? pasted() : null;
  const why = choice() === "cookie" && (status === 401 || status === 403)
    ? ["This page cannot read the cookie: is there one for this origin, and does it allow this?"]
    : reasons(sent, status, action, topics, now());
  list(target, [`${status}: ${body}`, ...why].map((text) => ({ text })));
}

function inspect() {
  const text = by("token").value.trim();
  by("claims").hidden = true;
  if (!text) return list(by("findings"), []);
  document.querySelector("input[value=token]").checked = true;
  try {
    const token = parse(text);
    list(by("findings"), examine(token, now()));
    by("claims").hidden = false;
    by("claims").querySelector("pre").textContent = JSON.stringify([token.header, token.claims], null, 2);
  } catch (error) {
    list(by("findings"), [{ bad: true, text: error.message }]);
  }
}

function target() {
  const url = new URL(hub);
  for (const topic of lines("topics")) url.searchParams.append(by("parameter").value, topic);
  return url;
}

function connect(submission) {
  submission.preventDefault();
  list(by("refusal"), []);
  if (stream !== null) return disconnect("not connected");
  if (lines("topics").length === 0) return list(by("refusal"), [{ text: "Name at least one topic." }]);
  const topics = lines("topics");
  by("connect").textContent = "Disconnect";
  const options = { ...authorization(), cursor: by("cursor").value.trim() };
  stream = new Stream(target(), options, {
    event: show,
    state: (text) => { by("state").textContent = text; },
    refused: (status, body) => {
      disconnect("refused");
      refused(by("refusal"), status, body, "subscribe", topics);
    },
  });
}

function disconnect(state) {
  stream?.stop();
  stream = null;
  by("connect").textContent = "Subscribe";
  by("state").textContent = state;
}

function show({ id, type, data }) {
  chart.add();
  if (published.has(id)) chart.add(performance.now() - published.get(id));
  note(received, id, performance.now());
  const item = document.createElement("li");
  const about = document.createElement("p");
  about.textContent = `${new Date().toLocaleTimeString()} · ${type} · ${id}`;
  const body = document.createElement("pre");
  body.textContent = data;
  item.append(about, body);
  by("events").prepend(item);
  while (by("events").childElementCount > KEPT) by("events").lastElementChild.remove();
}

/** Notes a moment; the oldest are forgotten. */
function note(moments, id, at) {
  moments.set(id, at);
  if (moments.size > KEPT) moments.delete(moments.keys().next().value);
}

function form() {
  const fields = new URLSearchParams(lines("to").map((topic) => ["topic", topic]));
  fields.append("data", by("data").value);
  for (const name of ["id", "type"]) if (by(name).value) fields.append(name, by(name).value);
  if (by("private").checked) fields.append("private", "on");
  return fields;
}

async function publish(submission) {
  submission.preventDefault();
  list(by("publish-refusal"), []);
  by("published").textContent = "";
  const [sent, topics] = [performance.now(), lines("to")];
  try {
    const response = await fetch(hub, { method: "POST", body: form(), cache: "no-store", ...authorization() });
    const body = (await response.text()).trim();
    if (!response.ok) return refused(by("publish-refusal"), response.status, body, "publish", topics);
    by("published").textContent = `published as ${body}`;
    if (received.has(body)) chart.add(Math.max(0, received.get(body) - sent));
    else note(published, body, sent);
  } catch (error) {
    list(by("publish-refusal"), [{ text: `The hub could not be reached: ${error.message}` }]);
  }
}

async function active() {
  by("active").hidden = true;
  try {
    const response = await fetch(`${hub.pathname}/subscriptions`, { cache: "no-store", ...authorization() });
    if (!response.ok) {
      const body = (await response.text()).trim();
      const where = response.status === 404 ? " Set subscriptions = true at the hub to have them told." : "";
      by("active-state").textContent = `${response.status}: ${body}${where}`;
      return;
    }
    table((await response.json()).subscriptions ?? []);
  } catch (error) {
    by("active-state").textContent = `The hub could not be reached: ${error.message}`;
  }
}

function table(subscriptions) {
  by("active-state").textContent = `${subscriptions.length} active`;
  by("active").hidden = subscriptions.length === 0;
  const rows = subscriptions.map(({ topic, match, subscriber, payload }) => {
    const row = document.createElement("tr");
    for (const text of [topic ?? match, subscriber, payload === undefined ? "" : JSON.stringify(payload)]) {
      row.insertCell().textContent = text;
    }
    return row;
  });
  by("active").tBodies[0].replaceChildren(...rows);
}

async function copy(button, text) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Without HTTPS there is no clipboard for pages: let the person copy.
    window.prompt("Copy this:", text);
  }
  setTimeout(() => { button.textContent = label; }, 1500);
}

async function playground() {
  by("mode").textContent = "playground";
  by("insecure").hidden = false;
  document.title = "Mercure playground";
  const response = await fetch("token", { cache: "no-store" });
  const text = (await response.text()).trim();
  if (!response.ok) return list(by("findings"), [{ bad: true, text }]);
  by("token").value = text;
  inspect();
}

by("hub").textContent = hub.href;
by("token").addEventListener("input", inspect);
by("subscribe").addEventListener("submit", connect);
by("publish").addEventListener("submit", publish);
by("refresh").addEventListener("click", active);
by("clear").addEventListener("click", () => by("events").replaceChildren());
by("subscribe-curl").addEventListener("click", (click) => {
  copy(click.currentTarget, curlSubscribe(target(), choice() === "token", by("cursor").value.trim()));
});
by("publish-curl").addEventListener("click", (click) => {
  copy(click.currentTarget, curlPublish(hub, [...form()], choice() === "token"));
});
if (document.body.dataset.mode === "playground") playground();
