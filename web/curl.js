// Requests as commands for a shell. The token itself stays on the page: the command reads a variable.

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const TOKEN = '-H "Authorization: Bearer $MERCURE_JWT"';

/**
 * @param {URL} url with its query
 * @param {boolean} withToken
 * @param {string} cursor empty for none
 */
export function curlSubscribe(url, withToken, cursor) {
  const parts = ["curl -N", quote(url.href)];
  if (withToken) parts.push(TOKEN);
  if (cursor) parts.push(`-H ${quote(`Last-Event-ID: ${cursor}`)}`);
  return parts.join(" ");
}

/**
 * @param {URL} url
 * @param {[string, string][]} fields
 * @param {boolean} withToken
 */
export function curlPublish(url, fields, withToken) {
  const parts = ["curl", quote(url.href)];
  if (withToken) parts.push(TOKEN);
  // A leading @ or < would make curl read a file.
  for (const [name, value] of fields) parts.push(`--data-urlencode ${quote(`${name}=${value}`)}`);
  return parts.join(" ");
}
