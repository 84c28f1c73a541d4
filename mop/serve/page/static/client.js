// Client: requests to the server that the page came from. Holds the caller's key, in memory only.

let key = "";

export function useKey(given) {
  key = given;
}

export function hasKey() {
  return key !== "";
}

function headers(more = {}) {
  return key ? { ...more, authorization: `Bearer ${key}` } : more;
}

/** A refusal of the server in its own words, or a connection that failed. */
export class Refused extends Error {}

async function read(response) {
  let body = null;
  try {
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(`The server's answer (status ${response.status}) is not JSON.`);
  }
  if (response.ok) return { body, headers: response.headers };
  throw new Refused(body?.error?.message ?? `The server refused this (status ${response.status}).`);
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "omit", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached.");
  }
  return read(response);
}

export function get(path) {
  return request(path, { headers: headers() });
}

export function post(path, body, signal) {
  const json = headers({ "content-type": "application/json" });
  return request(path, { method: "POST", headers: json, body: JSON.stringify(body), signal });
}

/** Return the page at this address as a document; scripts in it do not run. */
export function page(path) {
  return new Promise((resolve, reject) => {
    const exchange = new XMLHttpRequest();
    exchange.open("GET", path);
    exchange.responseType = "document";
    for (const [name, value] of Object.entries(headers())) exchange.setRequestHeader(name, value);
    exchange.onload = () =>
      exchange.responseXML ? resolve(exchange.responseXML) : reject(new Refused("The server's answer is not a page."));
    exchange.onerror = () => reject(new Refused("The server cannot be reached."));
    exchange.send();
  });
}
