// Main: brings the page to life; asks for a key first where the server wants one.

import { Refused, hasKey, page, useKey } from "./client.js";
import * as traffic from "./traffic.js";
import * as trying from "./trying.js";

let running = null;

/** Open the region that the address or a click names. */
function reveal(hash) {
  const inside = /^#(expert-\d+|generalist)$/.test(hash) && document.getElementById(hash.slice(1));
  const panel = inside && inside.closest("details");
  if (!panel) return;
  panel.open = true;
  panel.querySelector("summary").focus();
  panel.scrollIntoView({ block: "nearest" });
}

function live() {
  const { mixture, version } = document.getElementById("main").dataset;
  running?.stop();
  running = traffic.start(mixture, version);
  trying.start(mixture, running.refresh);
  reveal(location.hash);
}

/** Put the page at this address in place of the present one; returns whether the server gave it. */
async function open(path) {
  const found = await page(path);
  const main = found.getElementById("main");
  if (!main || "locked" in main.dataset) return false;
  document.getElementById("top").replaceWith(found.getElementById("top"));
  document.getElementById("main").replaceWith(main);
  document.title = found.title;
  live();
  main.focus();
  return true;
}

function unlock(form) {
  form.hidden = false;
  const field = document.getElementById("key");
  const refused = document.getElementById("refused");
  field.focus();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    refused.textContent = "";
    useKey(field.value.trim());
    try {
      if (await open(location.pathname + location.search)) return;
      refused.textContent = "The server does not know this key.";
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      refused.textContent = error.message;
    }
    useKey("");
    field.select();
  });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const address = link.getAttribute("href");
  if (address.startsWith("#")) {
    reveal(address);
  } else if (hasKey() && address.startsWith("/?mixture=")) {
    // A new page would not have the key.
    event.preventDefault();
    open(address);
  }
});
addEventListener("hashchange", () => reveal(location.hash));

const form = document.getElementById("unlock");
if (form) unlock(form);
else live();
