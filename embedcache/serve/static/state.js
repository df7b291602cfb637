// What is shown, kept in the URL's fragment, which is never sent: it can be bookmarked, and Back walks back.

const FILTER = /^(?:is|has|from|to)\../; // and after the dot the column

export function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const row = given.get("row");
  const filters = {};
  for (const [name, value] of given) if (FILTER.test(name)) filters[name] = value;
  return {
    view: ["search", "map", "board", "label"].includes(given.get("view")) ? given.get("view") : "search",
    query: given.get("q") || "",
    row: row !== null && /^\d{1,15}$/.test(row) ? Number(row) : null,
    filters,
    dedupe: given.get("dedupe") === "1",
    k: Math.min(200, Math.max(1, Number.parseInt(given.get("k"), 10) || 10)),
  };
}

export function hash(state) {
  const parts = new URLSearchParams();
  if (state.view !== "search") parts.set("view", state.view);
  if (state.row !== null) parts.set("row", state.row);
  else if (state.query) parts.set("q", state.query);
  for (const [name, value] of Object.entries(state.filters)) parts.set(name, value);
  if (state.dedupe) parts.set("dedupe", "1");
  if (state.k !== 10) parts.set("k", state.k);
  return `#${parts}`;
}

export function go(change) {
  const next = hash({ ...read(), ...change });
  if (next === (location.hash || "#")) window.dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = next;
}

// A token that came with the URL (#token=...) is taken out of it, and of the history.
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1));
  const token = given.get("token");
  if (token === null) return null;
  given.delete("token");
  history.replaceState(null, "", `${location.pathname}#${given}`);
  return token;
}

// Conditions as the server reads them: quoted, so that a value may hold anything.
const OPERATORS = { is: "=", has: " contains ", from: ">=", to: "<=" };
const quoted = (value) => `"${value.replace(/[\\"]/g, "\\$&")}"`;

export const where = (filters) => Object.entries(filters).map(([key, value]) => {
  const dot = key.indexOf(".");
  const [operator, column] = [OPERATORS[key.slice(0, dot)], key.slice(dot + 1)];
  return column + operator + (operator === "=" && value === "[]" ? value : quoted(value));
});
