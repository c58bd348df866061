// The drafter, as the page calls it: it works in a thread of its own. Knows no session.

import { OutriderError } from "./errors.js";

export class Drafter {
  #waiting = new Map();
  #number = 0;

  /** `worker` runs drafter-worker.js. */
  constructor(worker) {
    this.worker = worker;
    worker.onmessage = ({ data: { number, result, error } }) => {
      const { resolve, reject } = this.#waiting.get(number);
      this.#waiting.delete(number);
      if (error) reject(new OutriderError("engine_failed", error));
      else resolve(result);
    };
    worker.onerror = (event) => {
      for (const { reject } of this.#waiting.values()) reject(new OutriderError("engine_failed", event.message ?? "the drafter ended"));
      this.#waiting.clear();
    };
  }

  /** `files`: ArrayBuffers by name, which are handed over. `manifest` as the verifier gives it. */
  load(manifest, files) {
    return this.#ask("load", [manifest, files], Object.values(files));
  }

  prefill(tokenIds) {
    return this.#ask("prefill", [tokenIds]);
  }

  /** `count` guesses {id, confidence} of what follows; fewer at the answer's end, and at the end of what it can hold. */
  propose(tokenIds, params, count, stopIds) {
    return this.#ask("propose", [tokenIds, params, count, stopIds]);
  }

  #ask(method, values, transferred = []) {
    const number = this.#number++;
    const answer = Promise.withResolvers();
    this.#waiting.set(number, answer);
    this.worker.postMessage({ number, method, values }, transferred);
    return answer.promise;
  }
}
