// The server's JSON API. A token stays in this tab: it never goes into a URL that is sent.

let token = sessionStorage.getItem("embedcache-token") || "";

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export const hasToken = () => Boolean(token);

export function setToken(value) {
  token = value;
  sessionStorage.setItem("embedcache-token", value);
}

export async function call(path, { body, signal, bytes = false } = {}) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method: body === undefined ? "GET" : "POST", headers, signal, credentials: "omit", cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server does not answer. Is it still running?");
  }
  if (!answer.ok) {
    const document = await answer.json().catch(() => ({}));
    throw new Problem(answer.status, document.detail || `The server answered ${answer.status}.`);
  }
  return bytes ? answer.arrayBuffer() : answer.json();
}
