// One generation: drafts go up, verified tokens come down, both at once. The rules of the list are in frontier.js; here
// is what moves: a link that is opened and listened to, a drafter, and the question whether to draft now. When the link
// is lost the drafter answers alone, provisionally, until a verifier is heard again. Knows token ids; no text, no page.

import { linkLost, OutriderError, protocolError } from "./errors.js";
import { Frontier } from "./frontier.js";
import { cancelFrame, draftFrame, openFrame } from "./wire.js";

const MAX_AHEAD = 64; // guesses beyond what was heard
const ALONE_AFTER_MS = 10_000;
const MAX_SILENCE_MS = 120_000;
const ATTEMPTS = 3; // of who does not answer alone
const BASE_MS = 50, CAP_MS = 2_000;

/** What happened, in order, for who waits for the next of it. */
class Inbox {
  #items = [];
  #wake = null;

  push(item) {
    this.#items.push(item);
    this.#wake?.();
  }

  /** The next item; null after `timeoutMs` without one. */
  async next(timeoutMs) {
    if (!this.#items.length) {
      let timer;
      await new Promise((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, timeoutMs);
      });
      clearTimeout(timer);
    }
    return this.#items.shift() ?? null;
  }
}

export class Session {
  #inbox = new Inbox();
  #opened = null; // what the verifier opened, while it is
  #isOpening = false;
  #isDrafting = false;
  #isDry = false; // the drafter had nothing to say
  #isAlone = false;
  #maxDrafts = Infinity; // 0 while the verifier wants none
  #failures = 0;
  #attempt = 0; // what comes of an earlier one is not heard
  #heardMs = performance.now();
  isStopped = false;
  figures = { tokens: 0, passes: 0, drafted: 0, accepted: 0, retracted: 0 };

  /** `drafter` has prefill and propose. `pace` outlives the session: what it learned holds for the next. */
  constructor(link, drafter, pace) {
    Object.assign(this, { link, drafter, pace });
  }

  stop() {
    this.isStopped = true;
    this.#inbox.push({ kind: "stop" });
  }

  get numAhead() {
    return this.frontier.guesses.length;
  }

  /**
   * Steps, each a list of events: token, retracted, alone, finished. What is asked has promptIds, verifiedIds, provisionalIds,
   * maxTokens, params, stopIds, vocabulary, target ("" for any), and answersAlone. Throws what the verifier refused.
   */
  async *generate(asked) {
    const request = { ...asked };
    const frontier = (this.frontier = new Frontier([...request.promptIds, ...request.verifiedIds], request.provisionalIds));
    this.target = request.target;
    this.limit = request.promptIds.length + request.maxTokens;
    this.#draftBy(() => this.drafter.prefill(frontier.everything()).then(() => null));
    try {
      for (;;) {
        if (!this.#opened && !this.#isOpening) this.#open(request);
        if (this.#isTimeToDraft(request)) this.#draft(request);
        const item = await this.#inbox.next(this.#patienceMs(request));
        if (item?.kind === "stop") return;
        const events = this.#heed(item, request);
        if (this.#isAlone) events.push(...frontier.show(), ...this.#endAlone(request));
        this.#sendDrafts();
        if (events.length) yield events;
        if (events.at(-1)?.kind === "finished") return;
      }
    } finally {
      this.#attempt++;
      this.link.send(cancelFrame());
      this.link.close();
    }
  }

  #heed(item, request) {
    if (!item) return this.#onSilence(request);
    if (item.kind === "drafts") return this.#take(item);
    if (item.attempt !== this.#attempt) return [];
    try {
      return this.#hear(item.message, request);
    } catch (error) {
      return this.#lose(error, request);
    }
  }

  #open(request) {
    const attempt = ++this.#attempt;
    this.#isOpening = true;
    const tell = (message) => this.#inbox.push({ kind: "heard", attempt, message });
    const lose = (error) => tell({ kind: "lost", error });
    const waitMs = this.#failures ? Math.max(this.retryAfterMs ?? 0, Math.random() * Math.min(CAP_MS, BASE_MS * 2 ** this.#failures)) : 0;
    const opening = async () => {
      await new Promise((resolve) => setTimeout(resolve, waitMs));
      if (attempt !== this.#attempt) return;
      await this.link.open(tell, lose);
      if (attempt !== this.#attempt) return;
      this.#heardMs = Math.max(this.#heardMs, performance.now() - ALONE_AFTER_MS / 2); // it has time to answer
      const { vocabulary, params, stopIds, promptIds } = request;
      const tokenIds = this.frontier.tokenIds;
      const fields = { vocabulary, target: this.target, params, limit: this.limit, stopIds, tokenIds, numPrompt: promptIds.length };
      this.link.send(openFrame(fields));
    };
    opening().catch(lose);
  }

  #hear(message, request) {
    if (message.kind === "lost") throw message.error;
    if (message.kind === "fault") {
      const { code, message: sentence, mayRetry = false, retryAfterMs = 0 } = message;
      throw new OutriderError(code, sentence, { mayRetry, retryAfterMs });
    }
    if (message.kind === "load") {
      this.#maxDrafts = message.maxDrafts;
      return [];
    }
    this.#heardMs = performance.now();
    if (message.kind === "opened") return this.#begin(message, request);
    if (!this.#opened) throw protocolError("spoke out of turn");
    return this.#commit(message);
  }

  #begin(opened, request) {
    const length = this.frontier.tokenIds.length;
    if (this.#opened || opened.limit <= length || opened.limit > this.limit) throw protocolError("did not open the session");
    if (this.target && opened.target !== this.target) {
      throw new OutriderError("model_mismatch", "the verifier runs another target now; begin a new conversation");
    }
    if (opened.vocabulary !== request.vocabulary) {
      throw new OutriderError("vocabulary_mismatch", "the verifier's vocabulary is not the drafter's; load the app anew");
    }
    Object.assign(this, { target: opened.target });
    this.#opened = opened;
    this.#isOpening = this.#isDry = false;
    this.#maxDrafts = Infinity;
    return [];
  }

  #commit(verified) {
    const { events, checked, numAccepted } = this.frontier.commit(verified, this.#opened);
    this.pace.observe(checked, numAccepted, verified.tokenIds.length);
    this.#failures = 0;
    this.#isAlone = this.#isDry = false;
    const { figures } = this;
    figures.passes++;
    figures.tokens += verified.tokenIds.length;
    figures.drafted += checked.length;
    figures.accepted += numAccepted;
    for (const { kind, count } of events) if (kind === "retracted") figures.retracted += count;
    if (verified.finish) events.push({ kind: "finished", reason: verified.finish, numProvisional: 0 });
    return events;
  }

  /** The link broke, or could not be had. What may pass is tried again; meanwhile the drafter answers, if it may. */
  #lose(error, request) {
    this.link.close();
    this.#attempt++;
    const wasOpen = Boolean(this.#opened);
    this.#opened = null;
    this.#isOpening = false;
    this.#failures++;
    this.retryAfterMs = error.retryAfterMs ?? 0;
    if (!error.mayRetry || (!request.answersAlone && this.#failures >= ATTEMPTS)) throw error;
    this.frontier.restart();
    return wasOpen || !request.answersAlone ? [] : this.#goAlone();
  }

  #onSilence(request) {
    const isLong = performance.now() - this.#heardMs >= MAX_SILENCE_MS;
    if (isLong) {
      this.#heardMs = performance.now();
      return this.#lose(linkLost("the verifier says nothing"), request);
    }
    return request.answersAlone ? this.#goAlone() : [];
  }

  #goAlone() {
    if (this.#isAlone) return [];
    this.#isAlone = true;
    this.#isDry = false;
    this.frontier.restart();
    return [{ kind: "alone" }];
  }

  /** The provisional end: the drafter has said all it can, and no verifier is there. */
  #endAlone(request) {
    const { frontier } = this;
    const isStopped = frontier.numShown > 0 && request.stopIds.includes(frontier.last);
    if (this.#opened || (!this.#isDry && !isStopped && frontier.end < this.limit)) return [];
    if (!frontier.numShown) { // it has no answer of its own
      this.#isAlone = request.answersAlone = false;
      return [];
    }
    return [{ kind: "finished", reason: isStopped ? "stop" : "length", numProvisional: frontier.numShown }];
  }

  #patienceMs(request) {
    const waited = performance.now() - this.#heardMs;
    return Math.max(0, (request.answersAlone && !this.#isAlone ? ALONE_AFTER_MS : MAX_SILENCE_MS) - waited);
  }

  #room() {
    const { end, guesses } = this.frontier;
    if (this.#isAlone) return this.limit - end;
    if (!this.#opened || !this.#maxDrafts) return 0;
    return Math.min(MAX_AHEAD - guesses.length, this.#opened.limit - end - 1);
  }

  #isTimeToDraft(request) {
    const { guesses, last } = this.frontier;
    if (this.#isDrafting || this.#isDry || (guesses.length && request.stopIds.includes(last))) return false;
    return this.#step() > 0;
  }

  /** How many guesses to make now. Alone each is shown as soon as it is there. */
  #step() {
    return Math.min(this.#room(), this.#isAlone ? 1 : this.pace.step(this.frontier.guesses));
  }

  #draft(request) {
    const { frontier } = this;
    const { epoch, end: start } = frontier;
    const count = this.#step();
    this.#draftBy(async () => {
      const drafts = await this.drafter.propose(frontier.everything(), request.params, count, request.stopIds);
      return { epoch, start, drafts };
    });
  }

  #draftBy(work) {
    this.#isDrafting = true;
    const tell = (drafted) => this.#inbox.push({ kind: "drafts", drafted });
    work().then(tell, () => tell({ epoch: -1, start: 0, drafts: [] })); // a guess that fails costs nothing but itself
  }

  #take({ drafted }) {
    this.#isDrafting = false;
    if (drafted) {
      this.frontier.guess(drafted.epoch, drafted.start, drafted.drafts);
      this.#isDry = !drafted.drafts.length;
    }
    return [];
  }

  #sendDrafts() {
    let draft;
    while (this.#opened && (draft = this.frontier.nextDraft())) this.link.send(draftFrame(draft));
  }
}
