// Traffic: the counts in the list of experts, asked for every few seconds while somebody looks.

import { Refused, get } from "./client.js";

const SECONDS = 2;
const SVG = "http://www.w3.org/2000/svg";
const count = (value) => value.toLocaleString("en");

function bars(drawing, minutes) {
  const most = Math.max(1, ...minutes);
  const width = 60 / minutes.length;
  drawing.replaceChildren(
    ...minutes.map((queries, place) => {
      const bar = document.createElementNS(SVG, "rect");
      const height = queries ? Math.max(1.5, (12 * queries) / most) : 0.6;
      const attributes = { x: place * width, y: 12 - height, width: width - 1, height };
      for (const [name, value] of Object.entries(attributes)) bar.setAttribute(name, value);
      return bar;
    }),
  );
}

function fill(panel, found) {
  for (const place of panel.querySelectorAll(".queries")) place.textContent = count(found.queries);
  panel.querySelector(".percent").textContent = (100 * found.share).toFixed(0);
  panel.querySelector(".generalist-queries").textContent = count(found.generalist);
  panel.querySelector(".recent").textContent = count(found.recent.reduce((sum, one) => sum + one, 0));
  panel.querySelector(".share .part").setAttribute("width", (100 * found.share).toFixed(1));
  bars(panel.querySelector(".minutes"), found.recent);
  const drift = panel.querySelector(".drift");
  drift.hidden = found.drift === null;
  drift.textContent = found.drift?.words ?? "";
  drift.classList.toggle("drifted", found.drift?.drifted ?? false);
}

/** Keep the counts of a mixture fresh; returns how to refresh them now and how to stop. */
export function start(mixture, version) {
  const panels = [...document.querySelectorAll(".expert[data-expert]")];
  let timer = 0;
  let stopped = false;
  let asking = false;

  async function refresh() {
    if (stopped || asking || document.hidden) return;
    asking = true;
    try {
      const { body } = await get(`/page/traffic?mixture=${encodeURIComponent(mixture)}`);
      if (stopped) return;
      const found = new Map(body.experts.map((one) => [String(one.expert), one]));
      const none = { queries: 0, generalist: 0, share: 0, recent: Array(body.minutes).fill(0), drift: null };
      for (const panel of panels) fill(panel, found.get(panel.dataset.expert) ?? none);
      const words = body.queries === 1 ? "1 request" : `${count(body.queries)} requests`;
      document.getElementById("all-queries").textContent = words;
      document.getElementById("changed").hidden = body.version === version;
    } catch (error) {
      // A server that is away for a while is asked again; the numbers stay as they were.
      if (!(error instanceof Refused)) throw error;
    } finally {
      asking = false;
    }
  }

  timer = setInterval(refresh, 1000 * SECONDS);
  document.addEventListener("visibilitychange", refresh);
  refresh();
  return {
    refresh,
    stop() {
      stopped = true;
      clearInterval(timer);
      document.removeEventListener("visibilitychange", refresh);
    },
  };
}
