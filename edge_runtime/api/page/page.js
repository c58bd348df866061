// The page: a conversation, its controls and its figures. Answers are drawn by answer.js, fetched by stream.js.

import { Answer, bubble, clear, drawStrip } from "./answer.js";
import { ask, chunks } from "./stream.js";

const $ = (id) => document.getElementById(id);
let messages = []; // of the conversation, as the endpoint takes them
let stopping = null; // AbortController of the answer under way

const say = (text) => ($("status").textContent = text);
const key = () => $("key").value.trim();

function note(element, text, isError = false) {
  const line = document.createElement("span");
  line.className = isError ? "note error" : "note";
  line.textContent = text;
  element.append(line);
  return line;
}

function showFigures(told) {
  const show = (id, text) => ($(id).textContent = text);
  const unknown = (value, text) => (value === null ? "unknown" : text(value));
  show("tokens", told.tokens);
  show("acceptance", told.drafted ? `${Math.round((100 * told.accepted) / told.drafted)} % of ${told.drafted}` : "–");
  show("per_pass", told.passes ? (told.tokens / told.passes).toFixed(2) : "–");
  show("rtt", unknown(told.rtt_ms, (ms) => `${ms.toFixed(ms < 10 ? 1 : 0)} ms`));
  show("bytes", `${told.bytes_up} up, ${told.bytes_down} down`);
  show("energy", unknown(told.energy_j, (joules) => `${joules.toFixed(1)} J`));
}

async function send() {
  const text = $("text").value.trim();
  if (!text) return;
  if (stopping) {
    $("wait").hidden = false;
    say($("wait").textContent);
    return;
  }
  $("text").value = "";
  messages.push({ role: "user", content: text });
  bubble("user", text);
  const element = bubble("assistant");
  const body = document.createElement("span");
  element.append(body);
  await listen(element, new Answer(body));
}

async function listen(element, answer) {
  const stop = (stopping = new AbortController());
  const conversation = messages; // of this answer
  busy(true);
  say("Answering");
  let offline = null, frame = 0, ahead = 0;
  const draw = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      if (conversation !== messages) return; // that one is over
      drawStrip($("strip"), answer.parts, ahead);
      $("ahead").textContent = Math.max(ahead, answer.numProvisional);
    });
  };
  const request = {
    model: $("mode").value || "auto",
    messages,
    stream: true,
    temperature: $("temperature").valueAsNumber || 0,
    max_tokens: $("max_tokens").valueAsNumber || 512,
    x_outrider: { provisional: true, watch: true },
  };
  try {
    for await (const chunk of chunks(request, key(), stop.signal)) {
      const told = chunk.x_outrider ?? {}, text = chunk.choices[0]?.delta.content;
      const isLow = $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 80;
      if (told.confirmed_to !== undefined) answer.confirm(told.confirmed_to);
      if (told.retracted_from !== undefined) say(`Taken back: ${answer.retract(told.retracted_from)}`);
      if (text) answer.append(text, told.state === "verified", told.by);
      if (answer.numProvisional && !offline) {
        offline = note(element, "No verifier is heard: this device answers alone. What it says is provisional.");
        say(offline.textContent);
      } else if (offline && !answer.numProvisional) {
        offline.remove();
        offline = null;
      }
      ahead = told.ahead ?? ahead;
      if (told.figures) showFigures(told.figures);
      if (isLow) $("log").scrollTop = $("log").scrollHeight;
      draw();
    }
    say(`${answer.numProvisional ? "Provisional" : "Verified"} answer: ${answer.text}`);
  } catch (error) {
    if (error.name !== "AbortError") {
      note(element, error.message, true).setAttribute("role", "alert");
      $("lock").hidden &&= error.status !== 401;
    } else if (element.isConnected) {
      say("Stopped");
      note(element, "Stopped.");
    }
  } finally {
    ahead = 0;
    draw();
    if (answer.text) conversation.push({ role: "assistant", content: answer.text });
    else if (element.isConnected) conversation.pop(); // what was not answered is not asked again with the next
    if (stop === stopping) over();
  }
}

function over() {
  stopping = null;
  busy(false);
}

function busy(isBusy) {
  $("log").setAttribute("aria-busy", isBusy);
  $("send").hidden = isBusy;
  $("stop").hidden = !isBusy;
  $("wait").hidden = true;
  $("text").focus();
}

function startOver() {
  stopping?.abort();
  over();
  messages = [];
  clear();
  drawStrip($("strip"), [], 0);
  document.querySelectorAll("dd").forEach((figure) => (figure.textContent = "–"));
  say("New conversation");
}

async function switchLink(isCut) {
  try {
    const response = await ask("link", key(), isCut === undefined ? undefined : { is_cut: isCut });
    const state = await response.json();
    $("link").hidden = !state.exists;
    $("link").setAttribute("aria-checked", !state.is_cut);
    $("link").textContent = state.is_cut ? "Link cut" : "Link";
    if (isCut !== undefined) say(state.is_cut ? "The link is cut" : "The link is restored");
  } catch (error) {
    if (isCut !== undefined) say(error.message); // who is elsewhere has no switch
  }
}

async function greet() {
  try {
    const { data } = await (await ask("v1/models", key())).json();
    $("lock").hidden = true;
    $("mode").replaceChildren(...data.map(({ id }) => new Option(id)));
    await switchLink();
  } catch (error) {
    $("lock").hidden = error.status !== 401;
    say(error.message);
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
$("stop").addEventListener("click", () => stopping?.abort());
$("new").addEventListener("click", startOver);
$("link").addEventListener("click", () => switchLink($("link").getAttribute("aria-checked") === "true"));
$("key").addEventListener("change", greet);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stopping?.abort();
  if (!event.altKey || event.ctrlKey || event.metaKey) return;
  const button = { KeyN: $("new"), KeyL: $("link") }[event.code];
  if (!button || button.hidden) return;
  event.preventDefault();
  button.click();
});
greet();
