// The conversation on the page: answers as they are kept, what each event changes of both, and the figures. Knows no link
// and no store.

import { Answer, bubble, clear, drawStrip } from "./answer.js";
import { take } from "./store.js";

const FIGURES = ["tokens", "ahead", "acceptance", "per_pass", "bytes"]; // of an answer
const $ = (id) => document.getElementById(id);

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
    clear();
    drawStrip($("strip"), [], 0);
    for (const id of FIGURES) $(id).textContent = "\u2013";
  }

  tellState({ id, verifiedIds, provisionalIds, finish, refusal }, isUnderWay) {
    const note = this.#views.get(id)?.note;
    if (!note) return; // of another conversation
    const isDone = finish || isUnderWay;
    const state = provisionalIds.length ? "Provisional: this device answered alone." : isDone ? "" : "Not finished.";
    const isEmpty = !verifiedIds.length && !provisionalIds.length;
    note.textContent = refusal ? `${isEmpty ? "Not answered" : "Unverified, and stays so"}: ${refusal}.` : state;
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
    take(record, event);
    let by = null;
    if (event.kind === "token") {
      if (event.isVerified) answer?.confirm(Array.from(this.codec.decode(record.verifiedIds)).length);
      by = [event.isDrafted ? this.drafter : null];
    } else if (event.kind === "retracted") {
      const taken = answer?.retract(Array.from(this.textOf(record)).length);
      if (taken) this.say(`Taken back: ${taken}`);
    } else if (event.kind === "alone") this.say("No verifier is heard: this device answers alone");
    const more = this.textOf(record).slice(before);
    if (more) answer?.append(more, !record.provisionalIds.length, by);
  }

  figures(record, { figures, numAhead }, { bytesUp, bytesDown }) {
    const view = this.#views.get(record.id);
    if (!view) return; // of another conversation
    const told = (id, text) => ($(id).textContent = text);
    told("tokens", figures.tokens);
    told("ahead", numAhead);
    told("acceptance", figures.drafted ? `${figures.accepted} of ${figures.drafted}` : "\u2013");
    told("per_pass", figures.passes ? (figures.tokens / figures.passes).toFixed(2) : "\u2013");
    told("bytes", `${bytesUp} up, ${bytesDown} down`);
    this.tellState(record, true);
    drawStrip($("strip"), view.answer.parts, numAhead);
    $("log").scrollTop = $("log").scrollHeight;
  }
}
