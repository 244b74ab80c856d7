"use strict";

const room = document.querySelector(".room");
const list = document.querySelector("#messages");
const state = document.querySelector("#state");
const compose = document.querySelector("#compose");
const me = room.dataset.name;
const shown = new Set();
let newest = 0;

function show(message) {
  // The history, the stream and the answer to our own request may all bring a message; once is enough.
  if (shown.has(message.id)) return;
  shown.add(message.id);
  newest = Math.max(newest, message.id);
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  list.append(row(message));
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function row(message) {
  const item = document.createElement("li");
  item.dataset.id = message.id;
  item.classList.toggle("mine", message.sender === me);
  item.classList.toggle("private", message.recipient !== null);
  const sender = document.createElement("button");
  sender.className = "sender";
  sender.textContent = message.sender === me ? "You" : message.sender;
  sender.title = `Write to ${message.sender} in private`;
  sender.addEventListener("click", () => {
    if (message.sender !== me) compose.elements.to.value = message.sender;
    compose.elements.body.focus();
  });
  const time = document.createElement("time");
  time.dateTime = message.sent_at;
  time.textContent = new Date(message.sent_at).toLocaleTimeString([], { timeStyle: "short" });
  const head = document.createElement("div");
  head.className = "head";
  head.append(sender);
  if (message.recipient !== null) {
    const to = message.recipient === me ? "to you, in private" : `to ${message.recipient}, in private`;
    head.append(Object.assign(document.createElement("span"), { className: "note", textContent: to }));
  }
  head.append(time);
  const body = Object.assign(document.createElement("p"), { textContent: message.body });
  item.append(head, body);
  return item;
}

function connect() {
  const stream = new EventSource(room.dataset.hub);
  let interrupted = false;
  stream.addEventListener("open", async () => {
    state.textContent = "live";
    // After an interruption the hub replays what it still has. If it was restarted it has lost its
    // memory, so ask the application as well: it keeps every message.
    if (interrupted) {
      interrupted = false;
      const missed = await fetch(`${room.dataset.missed}?after=${newest}`);
      if (missed.ok) (await missed.json()).forEach(show);
    }
  });
  stream.addEventListener("message", (event) => show(JSON.parse(event.data)));
  stream.addEventListener("error", () => {
    interrupted = true;
    state.textContent = "reconnecting";
    // The browser gives up after an error answer; a server that is starting deserves another try.
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 1000 + Math.random() * 1000);
  });
}

compose.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = compose.elements.body;
  const sent = new FormData(compose);
  if (!text.value.trim()) return;
  text.value = "";
  try {
    const response = await fetch(compose.action, { method: "POST", body: sent });
    if (!response.ok) throw new Error(response.statusText);
    show(await response.json());
    list.scrollTop = list.scrollHeight;
  } catch {
    text.value = sent.get("body");
    state.textContent = "not sent, try again";
  }
});

JSON.parse(document.querySelector("#history").textContent).forEach(show);
list.scrollTop = list.scrollHeight;
connect();
