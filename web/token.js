// What can be seen of a token without its key: what it says, and why a hub would refuse it. The signature,
// the issuer and the audience are for the hub alone to judge.

const DETAIL = "https://mercure.rocks/authorization-detail";
const NAMESPACED = "https://mercure.rocks/";

/** @param {string} part base64url */
function decode(part) {
  const base64 = part.replaceAll("-", "+").replaceAll("_", "/");
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
}

/**
 * Takes a token apart.
 * @param {string} text
 * @returns {{header: object, claims: object, generation: "1.0" | "0.x"}}
 * @throws {Error} that says what it is not
 */
export function parse(text) {
  const parts = text.trim().split(".");
  if (parts.length !== 3) {
    throw new Error(`This is no token: it has ${parts.length} part(s) instead of three with dots between.`);
  }
  let [header, claims] = [null, null];
  try {
    [header, claims] = [decode(parts[0]), decode(parts[1])];
  } catch {
    throw new Error("This is no token: its parts are not JSON in base64url. Was it copied whole?");
  }
  if (header === null || typeof header !== "object" || claims === null || typeof claims !== "object") {
    throw new Error("This is no token: its parts are no JSON objects.");
  }
  const typ = String(header.typ ?? "").toLowerCase();
  const isV1 = typ === "at+jwt" || typ === "application/at+jwt";
  return { header, claims, generation: isV1 ? "1.0" : "0.x" };
}

/**
 * What it grants for an action.
 * @param {ReturnType<typeof parse>} token
 * @param {"publish" | "subscribe"} action
 * @returns {{match: string, kind: string}[]}
 */
export function grants({ claims, generation }, action) {
  const list = (value) => (Array.isArray(value) ? value : []);
  if (generation === "0.x") {
    const mercure = claims.mercure ?? claims[NAMESPACED] ?? {};
    return list(mercure[action]).map((match) => ({ match: String(match), kind: "selector" }));
  }
  const details = list(claims.authorization_details);
  const mine = details.filter((one) => one?.type === DETAIL && list(one.actions).includes(action));
  const topics = mine.flatMap((one) => list(one.topics));
  return topics.map((one) => ({ match: String(one?.match), kind: one?.match_type ?? "exact" }));
}

/** Whether a grant covers a topic; undefined where only the hub can say. */
function covers({ match, kind }, topic) {
  if (match === "*" || match === topic) return true;
  return kind === "exact" || (kind === "selector" && !match.includes("{")) ? false : undefined;
}

/** @param {number} seconds */
function ago(seconds) {
  const [count, unit] = seconds < 120 ? [seconds, "s"] : seconds < 7200 ? [seconds / 60, "min"] : [seconds / 3600, "h"];
  return `${Math.round(count)} ${unit}`;
}

function lifetime(claims, now) {
  const found = [];
  if (typeof claims.exp === "number") {
    found.push(
      claims.exp <= now
        ? { bad: true, text: `It expired ${ago(now - claims.exp)} ago: mint a new one.` }
        : { bad: false, text: `It expires in ${ago(claims.exp - now)}.` },
    );
  } else {
    found.push({ bad: false, text: "It never expires." });
  }
  if (typeof claims.nbf === "number" && claims.nbf > now) {
    found.push({ bad: true, text: `It is not valid yet: it will be in ${ago(claims.nbf - now)}. Is a clock wrong?` });
  }
  return found;
}

function shape({ header, claims, generation }) {
  const found = [];
  const bad = (text) => found.push({ bad: true, text });
  if (String(header.alg).toLowerCase() === "none") bad("It is not signed (alg none), so no hub accepts it.");
  if (generation === "0.x" && claims.authorization_details !== undefined && claims.mercure === undefined) {
    bad("Its authorization_details do not count: they need typ at+jwt in the header.");
  }
  if (generation === "1.0" && claims.authorization_details === undefined && claims.mercure !== undefined) {
    bad("Its mercure claim does not count: with typ at+jwt a token is judged by authorization_details.");
  }
  if (generation === "1.0") {
    for (const claim of ["iss", "aud", "exp"]) {
      if (claims[claim] === undefined) bad(`It has no ${claim}, which a token of generation 1.0 needs.`);
    }
  }
  return found;
}

/**
 * What there is to say about a token.
 * @param {ReturnType<typeof parse>} token
 * @param {number} now in seconds
 * @returns {{bad: boolean, text: string}[]}
 */
export function examine(token, now) {
  const list = (action) => grants(token, action).map((one) => one.match).join(", ") || "nothing";
  return [
    { bad: false, text: `Generation ${token.generation}, signed with ${token.header.alg}.` },
    ...lifetime(token.claims, now),
    ...shape(token),
    { bad: false, text: `May publish to: ${list("publish")}` },
    { bad: false, text: `May read private updates of: ${list("subscribe")}` },
  ];
}

/**
 * Why a hub may have refused a request.
 * @param {ReturnType<typeof parse> | null} token what was sent along, if it could be read
 * @param {number} status of the answer
 * @param {"publish" | "subscribe"} action
 * @param {string[]} topics
 * @param {number} now in seconds
 * @returns {string[]}
 */
export function reasons(token, status, action, topics, now) {
  if (status !== 401 && status !== 403) return [];
  if (token === null) return ["No token was sent that this page can read: paste one, and choose to send it."];
  const found = [...lifetime(token.claims, now), ...shape(token)].filter((one) => one.bad).map((one) => one.text);
  const granted = grants(token, action);
  if (granted.length === 0) found.push(`It allows nobody to ${action}.`);
  for (const topic of topics) {
    if (granted.length > 0 && granted.every((one) => covers(one, topic) === false)) {
      found.push(`It does not allow to ${action} to ${topic}.`);
    }
  }
  if (found.length > 0) return found;
  return [
    "Nothing is wrong with what can be read, so it is the signature, the issuer (iss) or the audience (aud): " +
      "this hub does not know them. The hub’s operator learns which by: MERCURE_JWT=… mercure-hub explain",
  ];
}
