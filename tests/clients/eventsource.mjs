// Follows a stream with the npm package "eventsource": URL TOKEN COUNT. Prints a line of JSON when
// the stream is open and for each event, and ends after COUNT events.
import { EventSource } from "eventsource";

const [url, token, count] = process.argv.slice(2);
const tell = (value) => console.log(JSON.stringify(value));
const source = new EventSource(url, {
  fetch: (input, init) =>
    fetch(input, {
      ...init,
      headers: token ? { ...init.headers, Authorization: `Bearer ${token}` } : init.headers,
    }),
});
let left = Number(count);
const onEvent = (event) => {
  tell({ type: event.type, id: event.lastEventId, data: event.data });
  if (--left === 0) source.close();
};
source.onopen = () => tell({ open: true });
source.onmessage = onEvent;
for (const type of ["greeting", "mercure"]) source.addEventListener(type, onEvent);
