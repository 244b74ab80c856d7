// An event stream by fetch: unlike EventSource it can carry a token in a header, and tells why it was
// refused. It comes back by the same rules (HTML, "Server-sent events").

/** The longest event that is taken, in characters: what never ends must not fill the memory. */
const LONGEST = 16 * 1024 * 1024;

/** The longest wait before it comes back, in milliseconds; timers take no more than 31 bits. */
const LONGEST_WAIT = 60 * 60 * 1000;

/** Splits a text into lines, and lines into events. */
export class Parser {
  /** @param {(event: {id: string, type: string, data: string}) => void} dispatch */
  constructor(dispatch) {
    this.dispatch = dispatch;
    this.lastId = "";
    this.retry = 1000;
    this.restart();
  }

  /** Forgets what a connection that has ended had begun with. */
  restart() {
    this.rest = "";
    this.id = this.lastId;
    this.#next();
  }

  #next() {
    this.data = [];
    this.type = "";
  }

  /** @param {string} text what has arrived, cut anywhere */
  feed(text) {
    this.rest += text;
    if (this.rest.length > LONGEST) throw new Error("an event is too long");
    // A carriage return at the end may be the first half of a line's end.
    const lines = this.rest.split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    lines.forEach((line) => this.#line(line));
  }

  #line(line) {
    if (line === "") return this.#end();
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (name === "data") this.data.push(value);
    if (name === "event") this.type = value;
    if (name === "id" && !value.includes("\0")) this.id = value;
    if (name === "retry" && /^\d+$/.test(value)) this.retry = Math.min(Number(value), LONGEST_WAIT);
  }

  #end() {
    // Only what came whole is not asked for again.
    this.lastId = this.id;
    if (this.data.length > 0) {
      this.dispatch({ id: this.lastId, type: this.type || "message", data: this.data.join("\n") });
    }
    this.#next();
  }
}

/** A subscription that comes back by itself until it is refused or stopped. */
export class Stream {
  /**
   * @param {string} url what to read
   * @param {{headers: Record<string, string>, credentials: RequestCredentials, cursor: string}} options
   * @param {{event: Function, state: Function, refused: Function}} told
   */
  constructor(url, options, told) {
    Object.assign(this, { url, options, told });
    this.abort = new AbortController();
    this.parser = new Parser(told.event);
    this.parser.lastId = options.cursor;
    this.#run();
  }

  stop() {
    this.abort.abort();
  }

  async #run() {
    while (!this.abort.signal.aborted) {
      try {
        if (!(await this.#read())) return;
      } catch (error) {
        if (this.abort.signal.aborted) return;
        this.told.state(`interrupted (${error.message}); it comes back by itself`);
      }
      await new Promise((resolve) => setTimeout(resolve, this.parser.retry));
    }
  }

  /** Reads one connection to its end; false if there is no point in another one. */
  async #read() {
    this.told.state("connecting");
    const { headers, credentials } = this.options;
    const cursor = this.parser.lastId;
    const response = await fetch(this.url, {
      headers: { Accept: "text/event-stream", ...headers, ...(cursor && { "Last-Event-ID": cursor }) },
      credentials,
      cache: "no-store",
      signal: this.abort.signal,
    });
    if (response.status === 429 || response.status >= 500) {
      throw new Error(`${response.status} ${(await response.text()).trim()}`);
    }
    if (response.status !== 200) {
      this.told.refused(response.status, (await response.text()).trim());
      return false;
    }
    this.told.state("live");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    this.parser.restart();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      this.parser.feed(part.value);
    }
    throw new Error("the hub ended it");
  }
}
