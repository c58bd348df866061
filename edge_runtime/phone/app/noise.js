// The choice at a position, as the target makes it: arg-max, at a temperature with noise that is a function of seed,
// position and token id (docs/protocol.md). The bits are the verifier's own; a drafter that adds the same noise tends to
// pick the same token. Knows no model.

const U64 = (1n << 64n) - 1n;
const SPAN = 27; // a token further than this below the best, at temperature 1, can never win

function mix64(value) {
  value = (value + 0x9e3779b97f4a7c15n) & U64;
  value = ((value ^ (value >> 30n)) * 0xbf58476d1ce4e5b9n) & U64;
  value = ((value ^ (value >> 27n)) * 0x94d049bb133111ebn) & U64;
  return value ^ (value >> 31n);
}

function finalize(bits) {
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return bits ^ (bits >>> 16);
}

/** Of a token id its 32 bits at this position. */
export function bitsAt(seed, position) {
  const key = mix64(mix64(BigInt(seed)) ^ BigInt(position));
  const low = Number(key & 0xffffffffn), high = Number(key >> 32n);
  return (id) => finalize(finalize((Math.imul(id, 0x9e3779b1) + low) | 0) ^ high) >>> 0;
}

/** Standard Gumbel noise from 32 bits. */
export const gumbel = (bits) => -Math.log(-Math.log((bits + 0.5) * 2 ** -32));

/** The column that is chosen of `logits`, a Float32Array. `idMap` gives columns' token ids in a trimmed vocabulary. */
export function choose(logits, { temperature, seed }, position, idMap = null) {
  let best = 0;
  for (let column = 1; column < logits.length; column++) if (logits[column] > logits[best]) best = column;
  if (temperature === 0) return best;
  const floor = logits[best] - SPAN * temperature;
  const bits = bitsAt(seed, position);
  let highest = -Infinity;
  for (let column = 0; column < logits.length; column++) {
    if (!(logits[column] >= floor)) continue;
    const score = logits[column] / temperature + gumbel(bits(idMap ? idMap[column] : column));
    if (score > highest) [highest, best] = [score, column];
  }
  return best;
}
