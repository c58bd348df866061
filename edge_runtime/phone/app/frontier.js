// The device's list: verified up to the frontier, guesses right of it. Its rules, free of clocks and links; they are
// those of edge_runtime/frontier.py. Guesses that were shown, as provisional, outlive the link; others do not.

import { protocolError } from "./errors.js";
import { MAX_DRAFTS } from "./wire.js";

export class Frontier {
  #numSent = 0;

  constructor(tokenIds, provisionalIds = []) {
    this.tokenIds = [...tokenIds];
    this.guesses = provisionalIds.map((id) => ({ id, confidence: 0.75 }));
    this.numShown = this.guesses.length;
    this.epoch = 0;
  }

  get end() {
    return this.tokenIds.length + this.guesses.length;
  }

  get last() {
    return this.guesses.at(-1)?.id ?? this.tokenIds.at(-1);
  }

  everything() {
    return [...this.tokenIds, ...this.guesses.map(({ id }) => id)];
  }

  /** What was sent counts no more. Guesses that were shown stay, to be sent again; the others go. */
  restart() {
    this.epoch++;
    this.#drop(this.numShown);
    this.#numSent = 0;
  }

  /** Append what was drafted in `epoch` from `start` on; nothing of what has become worthless meanwhile. */
  guess(epoch, start, drafts) {
    if (epoch !== this.epoch || start > this.end) return;
    const known = this.everything().slice(start);
    if (drafts.slice(0, known.length).some(({ id }, at) => id !== known[at])) return;
    this.guesses.push(...drafts.slice(known.length));
  }

  /** The guesses that were not shown yet, as provisional tokens. */
  show() {
    const start = this.numShown;
    this.numShown = this.guesses.length;
    return this.guesses.slice(start).map(({ id }, at) => (
      { kind: "token", position: this.tokenIds.length + start + at, id, isDrafted: true, isVerified: false }));
  }

  /** What a Draft says of guesses that were not sent yet; null for none. */
  nextDraft() {
    const start = this.#numSent, end = Math.min(this.guesses.length, MAX_DRAFTS);
    if (start >= end) return null;
    this.#numSent = end;
    const drafts = this.guesses.slice(start, end);
    return { epoch: this.epoch, start: this.tokenIds.length + start, tokenIds: drafts.map(({ id }) => id),
      confidences: drafts.map(({ confidence }) => confidence) };
  }

  /** Move the frontier by a Verified. Throws, with nothing changed, for one that does not continue the list. */
  commit({ epoch, start, tokenIds, numAccepted, numDrafted, finish }, { limit, numVocab }) {
    const isNow = epoch === this.epoch; // else it is about guesses that are gone
    const drafted = isNow ? numDrafted : 0, accepted = isNow ? numAccepted : 0;
    const agrees = (at) => tokenIds[at] === this.guesses[at]?.id;
    const isSound = tokenIds.length > 0 && start === this.tokenIds.length && start + tokenIds.length <= limit &&
      numAccepted <= Math.min(numDrafted, tokenIds.length) && drafted <= this.#numSent &&
      tokenIds.slice(0, accepted).every((_, at) => agrees(at)) && tokenIds.every((id) => id < numVocab);
    if (!isSound) throw protocolError("sent tokens that do not continue the list");
    const most = Math.min(tokenIds.length, this.guesses.length);
    let numAgreed = 0;
    while (numAgreed < most && agrees(numAgreed)) numAgreed++;
    const missed = numAgreed < most;
    const checked = this.guesses.slice(0, drafted);
    const counted = Math.min(numAgreed, drafted);
    const credited = Math.max(counted, Math.min(numAgreed, this.numShown)); // what was shown keeps its author's name
    const events = tokenIds.map((id, at) => ({ kind: "token", position: start + at, id, isDrafted: at < credited, isVerified: true }));
    const numVoid = missed || finish ? Math.max(0, this.numShown - numAgreed) : 0;
    this.tokenIds.push(...tokenIds);
    if (missed || finish) {
      this.epoch += missed ? 1 : 0;
      this.#drop(0);
    } else {
      this.guesses.splice(0, tokenIds.length);
      this.numShown = Math.max(0, this.numShown - tokenIds.length);
      this.#numSent = Math.max(0, this.#numSent - tokenIds.length);
    }
    if (numVoid) events.splice(numAgreed, 0, { kind: "retracted", position: start + numAgreed, count: numVoid });
    return { events, checked, numAccepted: counted };
  }

  #drop(start) {
    this.guesses.length = Math.min(start, this.guesses.length);
    this.numShown = Math.min(this.numShown, start);
    this.#numSent = Math.min(this.#numSent, start);
  }
}
