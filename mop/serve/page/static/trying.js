// Trying: the box for a query: where it lands, why, what would be sent, and, when asked for, the model's answer.

import { Refused, post } from "./client.js";
import { show } from "./plane.js";

const element = (id) => document.getElementById(id);
const number = (value) => value.toFixed(3);

function text(id, words) {
  element(id).textContent = words;
}

function named(region) {
  return region.words ? `${region.expert} (${region.words})` : `${region.expert}`;
}

function landing(found) {
  const who = found.decision.generalist ? "The generalist answers." : "Its expert answers.";
  return `It lands in region ${named(found.region)}. ${who}`;
}

function quoted(demo) {
  const kind = demo.retrieved ? "retrieved for this query" : "one of the expert's own";
  return `“${demo.input}” → “${demo.output}”, at distance ${number(demo.distance)}; ${kind}`;
}

function margin(value) {
  if (value === null) return "none: there is one region only";
  return `${number(value)}: how much farther the second nearest is`;
}

function message({ role, content }) {
  const item = document.createElement("li");
  item.className = `message ${["system", "user", "assistant"].includes(role) ? role : "other"}`;
  const who = document.createElement("span");
  who.className = "role";
  who.textContent = role;
  const words = document.createElement("pre");
  words.textContent = typeof content === "string" ? content : JSON.stringify(content, null, 1);
  item.append(who, words);
  return item;
}

function fill(found) {
  text("landing", landing(found));
  text("why-region", `${named(found.region)}, at distance ${number(found.region.distance)}`);
  text("why-second", found.second ? `${named(found.second)}, at distance ${number(found.second.distance)}` : "none");
  text("why-margin", margin(found.decision.margin));
  text("why-demo", found.nearest_demo ? quoted(found.nearest_demo) : "none: the prompt shows no demos");
  text("why-answers", found.answers);
  text("why-departure", found.departure ?? "");
  element("departs").hidden = found.departure === null;
  const nearer = found.second && found.second.distance < found.region.distance;
  text("term-region", nearer ? "Region" : "Nearest region");
  text("term-second", nearer ? "Nearest region" : "Second nearest");
  const parameters = Object.entries(found.parameters).map(([name, value]) => `${name} ${JSON.stringify(value)}`);
  text("parameters", `${found.messages.length} messages, with ${parameters.join(", ")}.`);
  element("messages").replaceChildren(...found.messages.map(message));
  element("result").hidden = false;
  element("answer").hidden = true;
  show(found.point, found.region.expert, found.second ? found.second.expert : null);
}

function answered({ body, headers }, seconds) {
  const choice = body.choices?.[0]?.message ?? {};
  text("answer-text", choice.content ?? JSON.stringify(choice, null, 1));
  const usage = body.usage ?? {};
  const tokens = [
    ["prompt", usage.prompt_tokens],
    ["of them cached", usage.prompt_tokens_details?.cached_tokens],
    ["answer", usage.completion_tokens],
  ].filter(([, count]) => Number.isFinite(count));
  const counted = tokens.map(([name, count]) => `${name} ${count}`).join(", ");
  const expert = headers.get("x-mop-generalist") === "true" ? "the generalist" : `expert ${headers.get("x-mop-expert")}`;
  text("answer-facts", `By ${expert} in ${seconds.toFixed(1)} s.${counted ? ` Tokens: ${counted}.` : ""}`);
  element("answer").hidden = false;
}

/** Make the box work for this mixture; `onAnswer` is called after an answer. */
export function start(mixture, onAnswer) {
  const form = element("try");
  let current = null;
  let shown = "";

  async function run(button, work) {
    current?.abort();
    const mine = (current = new AbortController());
    text("problem", "");
    button.setAttribute("aria-busy", "true");
    try {
      await work(mine.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      text("problem", error instanceof Refused ? error.message : `The page has a defect: ${error.message}`);
      if (!(error instanceof Refused)) throw error;
    } finally {
      if (current === mine || !current) button.removeAttribute("aria-busy");
    }
  }

  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    element("ask").removeAttribute("aria-busy");
    run(element("route"), async (signal) => {
      const { body } = await post("/page/try", { model: mixture, query: element("query").value }, signal);
      shown = body.query;
      fill(body);
    });
  });
  element("query").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  element("ask").addEventListener("click", () => {
    element("route").removeAttribute("aria-busy");
    run(element("ask"), async (signal) => {
      const began = performance.now();
      const messages = [{ role: "user", content: shown }];
      answered(await post("/v1/chat/completions", { model: mixture, messages }, signal), (performance.now() - began) / 1000);
      onAnswer();
    });
  });
}
