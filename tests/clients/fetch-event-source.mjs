// Follows a stream with "@microsoft/fetch-event-source": URL TOKEN COUNT, as eventsource.mjs does.
// The package is made for browsers; what it asks of one is stood in for here.
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
globalThis.window = globalThis;
const { fetchEventSource } = (await import("@microsoft/fetch-event-source")).default;

const [url, token, count] = process.argv.slice(2);
const tell = (value) => console.log(JSON.stringify(value));
const done = new AbortController();
let left = Number(count);
fetchEventSource(url, {
  headers: token ? { Authorization: `Bearer ${token}` } : {},
  signal: done.signal,
  openWhenHidden: true,
  onopen: async (response) => {
    if (!response.ok) throw new Error(`the hub answered ${response.status}`);
    tell({ open: true, preceding: response.headers.get("Mercure-Last-Event-ID") });
  },
  onmessage: (event) => {
    if (!event.data) return; // the package reports frames without data, too
    tell({ type: event.event || "message", id: event.id, data: event.data });
    if (--left === 0) done.abort();
  },
  onclose: () => {
    throw new Error("closed"); // makes the package connect again
  },
  onerror: () => 50,
});
