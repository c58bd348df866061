// The drafter's thread: guesses of a small model, with the target's own noise. Its cache follows the list it is given: it
// is cut back to the part they share. Knows no link and no verifier.

import { Model } from "./model.js";
import { choose } from "./noise.js";

let model = null;

function sharedLength(left, right) {
  let length = 0;
  while (length < left.length && length < right.length && left[length] === right[length]) length++;
  return length;
}

/** The chance that the model itself gives the column. */
function confidenceOf(logits, column) {
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - logits[column]);
  return 1 / sum;
}

const methods = {
  async load(manifest, files) {
    model = await Model.load(manifest, files);
  },

  async prefill(tokenIds) {
    const held = sharedLength(model.cached, tokenIds);
    if (held >= tokenIds.length - 1 || tokenIds.length > model.maxContext) return;
    model.cut(held);
    await model.extend(tokenIds.slice(held, -1));
  },

  async propose(tokenIds, params, count, stopIds) {
    const drafts = [];
    let list = tokenIds;
    while (drafts.length < count && list.length < model.maxContext) {
      model.cut(Math.min(sharedLength(model.cached, list), list.length - 1));
      const logits = await model.extend(list.slice(model.cached.length));
      const column = choose(logits, params, list.length, model.idMap);
      const id = model.idMap ? model.idMap[column] : column;
      const confidence = confidenceOf(logits, column);
      drafts.push({ id, confidence });
      if (stopIds.includes(id)) break;
      list = [...list, id];
    }
    return drafts;
  },
};

let turn = Promise.resolve(); // one at a time: they share a cache
onmessage = ({ data: { number, method, values } }) => {
  turn = turn.then(() => methods[method](...values)).then(
    (result) => postMessage({ number, result }),
    (error) => postMessage({ number, error: String(error?.message ?? error) }),
  );
};
