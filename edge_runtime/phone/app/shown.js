// The conversation on the page: answers as they are kept, what each event changes of both, and the figures. Knows no link
// and no store.

import { Answer, drawStrip } from "./answer.js";

const $ = (id) => document.getElementById(id);

function bubble(role, text = "") {
  const element = document.createElement("article");
  element.className = role;
  element.setAttribute("aria-label", role === "user" ? "You" : "Answer");
  element.textContent = text;
  $("hint").hidden = true;
  $("log").append(element);
  return element;
}

export class Shown {
  #views = new Map(); // answer id -> {note, answer}: those of the conversation on the page

  /** `say` tells a line to who cannot see; `drafter` is the name of who guesses here. */
  constructor(codec, drafter, say) {
    Object.assign(this, { codec, drafter, say });
  }

  textOf({ verifiedIds, provisionalIds, finish }) {
    return this.codec.decode([...verifiedIds, ...provisionalIds], { isWhole: Boolean(finish) });
  }

  /** The answer as it was kept. */
  draw(record) {
    bubble("user", record.question);
    const element = bubble("assistant"), body = document.createElement("span"), note = document.createElement("span");
    note.className = "note";
    element.append(body, note);
    const answer = new Answer(body);
    const verified = this.codec.decode(record.verifiedIds);
    if (verified) answer.append(verified, true, null);
    const rest = this.textOf(record).slice(verified.length);
    if (rest) answer.append(rest, false, null);
    this.#views.set(record.id, { note, answer });
    this.tellState(record, false);
    element.scrollIntoView({ block: "end" });
  }

  clear() {
    this.#views.clear();
    document.querySelectorAll("article").forEach((element) => element.remove());
    $("hint").hidden = false;
  }

  tellState({ id, provisionalIds, finish }, isUnderWay) {
    const note = this.#views.get(id)?.note;
    if (!note) return; // of another conversation
    const isDone = finish || isUnderWay;
    note.textContent = provisionalIds.length ? "Provisional: this device answered alone." : isDone ? "" : "Not finished.";
    note.hidden = !note.textContent;
  }

  /** What ended provisionally is under way again: a broken character at its end is open again, too. */
  reopen(record) {
    const before = this.textOf(record).length;
    record.finish = null;
    const text = this.textOf(record);
    if (text.length < before) this.#views.get(record.id)?.answer.retract(Array.from(text).length);
  }

  /** The kept answer after an event, and what is seen of it. */
  apply(record, event) {
    const answer = this.#views.get(record.id)?.answer;
    const before = this.textOf(record).length;
    const { verifiedIds, provisionalIds } = record;
    let by = null;
    if (event.kind === "token") {
      if (event.isVerified) {
        verifiedIds.push(event.id);
        provisionalIds.shift();
        answer?.confirm(Array.from(this.codec.decode(verifiedIds)).length);
      } else provisionalIds.push(event.id);
      by = [event.isDrafted ? this.drafter : null];
    } else if (event.kind === "retracted") {
      provisionalIds.length = event.position - record.promptIds.length - verifiedIds.length;
      const taken = answer?.retract(Array.from(this.textOf(record)).length);
      if (taken) this.say(`Taken back: ${taken}`);
    } else if (event.kind === "finished") record.finish = event.reason;
    else if (event.kind === "alone") this.say("No verifier is heard: this device answers alone");
    const more = this.textOf(record).slice(before);
    if (more) answer?.append(more, !provisionalIds.length, by);
  }

  figures(record, { figures, numAhead }, { bytesUp, bytesDown }) {
    const told = (id, text) => ($(id).textContent = text);
    told("tokens", figures.tokens);
    told("ahead", numAhead);
    told("acceptance", figures.drafted ? `${figures.accepted} of ${figures.drafted}` : "\u2013");
    told("per_pass", figures.passes ? (figures.tokens / figures.passes).toFixed(2) : "\u2013");
    told("bytes", `${bytesUp} up, ${bytesDown} down`);
    const view = this.#views.get(record.id);
    if (!view) return;
    this.tellState(record, true);
    drawStrip($("strip"), view.answer.parts, numAhead);
    $("log").scrollTop = $("log").scrollHeight;
  }
}
