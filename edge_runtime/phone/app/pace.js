// How far to run ahead of a verifier that does not wait: as far as a guess may still count, unless guessing is no use.
// The rules of edge_runtime/ahead.py, for one source of guesses. Pure arithmetic.

const MAX_STEP = 4; // guesses in one message; the first are wanted soon
const MIN_REACH = 0.05; // that all guesses up to the next one are right
const NUM_BINS = 12;
const FADE = 0.97; // an observation: chances are those of about the last thirty
const PRIOR_CHANCE = 0.75, PRIOR_WEIGHT = 2; // of an untried drafter's next guess; how long a confidence is believed
const MIN_GAIN = 0.02, GAIN_FADE = 0.98; // accepted drafts a token, below which drafting rests; a pass
const TRIAL_PASSES = 40; // before the gain is judged
const REST_TOKENS = 64;

const binOf = (confidence) => Math.min(NUM_BINS - 1, Math.floor(confidence * NUM_BINS));

export class Pace {
  // By bin of confidence, and in the last place over all: drafts tried and accepted, given that those before them were.
  #tried = new Float64Array(NUM_BINS + 1);
  #accepted = new Float64Array(NUM_BINS + 1);
  #gain = { accepted: 0, verified: 0, passes: 0 };
  #rest = 0; // tokens to go before drafting is tried again
  #nextRest = REST_TOKENS;

  /** How many guesses to make now, after those that are ahead already. */
  step(ahead) {
    if (this.#rest > 0) return 0;
    const reach = ahead.reduce((chance, { confidence }) => chance * this.#rate(binOf(confidence), confidence), 1);
    return reach * this.#rate(NUM_BINS, PRIOR_CHANCE) >= MIN_REACH ? Math.min(MAX_STEP, 1 + Math.floor(ahead.length / 4)) : 0;
  }

  #rate(bin, prior) {
    return (this.#accepted[bin] + prior * PRIOR_WEIGHT) / (this.#tried[bin] + PRIOR_WEIGHT);
  }

  /** A pass looked at the guesses `checked`, of which the first `numAccepted` were right, and brought `numTokens`. */
  observe(checked, numAccepted, numTokens) {
    for (const counts of [this.#tried, this.#accepted]) counts.forEach((count, bin) => (counts[bin] = FADE * count));
    checked.slice(0, numAccepted + 1).forEach(({ confidence }, at) => {
      for (const bin of [binOf(confidence), NUM_BINS]) {
        this.#tried[bin]++;
        this.#accepted[bin] += at < numAccepted ? 1 : 0;
      }
    });
    const gain = this.#gain;
    if (this.#rest > 0) {
      this.#rest -= numTokens;
      this.#gain = { accepted: 0, verified: 0, passes: 0 };
      return;
    }
    gain.passes++;
    gain.accepted = GAIN_FADE * gain.accepted + numAccepted;
    gain.verified = GAIN_FADE * gain.verified + numTokens;
    if (gain.accepted >= MIN_GAIN * gain.verified) this.#nextRest = REST_TOKENS;
    else if (gain.passes >= TRIAL_PASSES) {
      this.#rest = this.#nextRest;
      this.#nextRest = Math.min(8 * REST_TOKENS, 2 * this.#nextRest);
    }
  }
}
