// A minute of events: bars for events a second, a line for how long the page's own ones took.

const SECONDS = 60;
const [WIDTH, HEIGHT] = [600, 120];

/** Counts events by second. */
export class Chart {
  /** @param {SVGElement} svg @param {HTMLElement} caption its words, for who does not see it */
  constructor(svg, caption) {
    Object.assign(this, { svg, caption });
    /** @type {Map<number, {count: number, took: number[]}>} */
    this.seconds = new Map();
    setInterval(() => this.draw(), 1000);
    this.draw();
  }

  /** @param {number} [took] milliseconds from publication to delivery, if that is known */
  add(took) {
    const second = this.#of(Math.floor(Date.now() / 1000));
    if (took === undefined) second.count += 1;
    else second.took.push(took);
    this.draw();
  }

  #of(at) {
    if (!this.seconds.has(at)) this.seconds.set(at, { count: 0, took: [] });
    return this.seconds.get(at);
  }

  draw() {
    const now = Math.floor(Date.now() / 1000);
    for (const at of this.seconds.keys()) if (at <= now - SECONDS) this.seconds.delete(at);
    const columns = [...this.seconds].map(([at, second]) => ({ x: SECONDS - 1 - (now - at), ...second }));
    columns.sort((one, other) => one.x - other.x);
    const times = columns.flatMap((column) => column.took);
    this.svg.replaceChildren(...bars(columns), line(columns, Math.max(1, ...times)));
    this.caption.textContent = words(columns, times);
  }
}

function element(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function bars(columns) {
  const [most, width] = [Math.max(1, ...columns.map((column) => column.count)), WIDTH / SECONDS];
  return columns.map(({ x, count }) => {
    const height = (count / most) * (HEIGHT - 10);
    return element("rect", { x: x * width + 1, y: HEIGHT - height, width: width - 2, height });
  });
}

function line(columns, longest) {
  const width = WIDTH / SECONDS;
  const points = columns.filter((column) => column.took.length > 0).map(({ x, took }) => {
    const y = HEIGHT - (median(took) / longest) * (HEIGHT - 20) - 5;
    return `${(x + 0.5) * width},${y}`;
  });
  return element("polyline", { points: points.join(" ") });
}

function median(values) {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

function words(columns, times) {
  const total = columns.reduce((sum, column) => sum + column.count, 0);
  if (total === 0) return "No events in the last minute.";
  const most = Math.max(...columns.map((column) => column.count));
  const text = `${total} event${total === 1 ? "" : "s"} in the last minute, at most ${most} a second`;
  if (times.length === 0) return `${text}.`;
  return `${text}; those published here took ${median(times).toFixed(1)} ms (median), ${Math.max(...times).toFixed(1)} ms at most.`;
}
