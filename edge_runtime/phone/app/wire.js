// The messages between a device and a verifier (docs/protocol.md), and the frames they travel in.
// Decoded strictly: what is not exactly one valid message is refused. Knows no socket and no session.

import { decode, encode } from "./lib/msgpack/index.mjs";
import { protocolError } from "./errors.js";

export const SUBPROTOCOL = "outrider.v1";
export const TOKEN_PREFIX = "outrider.token."; // of the subprotocol that shows a token
export const STREAM_PATH = "../v1/stream"; // from where the app is
export const MAX_DRAFTS = 256;
const FRAME_BYTES = 192;
const PAGE_BYTES = 4096;
const END = 0x80;
const MAX_POSITION = 2 ** 24;
const NEVER_WAIT = 0;

/** Token ids as they travel: 4 little-endian bytes each. */
export function packIds(ids) {
  const bytes = new Uint8Array(4 * ids.length);
  const view = new DataView(bytes.buffer);
  ids.forEach((id, at) => view.setUint32(4 * at, id, true));
  return bytes;
}

export function unpackIds(bytes) {
  if (bytes.length % 4) throw protocolError("sent half a token id");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / 4 }, (_, at) => view.getUint32(4 * at, true));
}

/** A message as it travels: encoded, ended, and padded to one of very few sizes. */
function toFrame(fields) {
  const data = encode(fields);
  const length = data.length + 1;
  const frame = new Uint8Array(length <= FRAME_BYTES ? FRAME_BYTES : Math.ceil(length / PAGE_BYTES) * PAGE_BYTES);
  frame.set(data);
  frame[data.length] = END;
  return frame;
}

/** Begin, or go on after anything was lost: the device's whole token list. */
export function openFrame({ vocabulary, target = "", params, limit, stopIds, tokenIds, numPrompt }) {
  const { temperature, seed } = params;
  const travelling = [temperature, 0, 1, 0, seed, 1, 0, 0, new Uint8Array(), [], 0, "", "", numPrompt];
  return toFrame([1, vocabulary, target, travelling, limit, NEVER_WAIT, packIds(stopIds), packIds(tokenIds)]);
}

/** Guesses for the positions from `start` on. `confidences` are probabilities. */
export function draftFrame({ epoch, start, tokenIds, confidences }) {
  const bytes = Uint8Array.from(confidences, (confidence) => Math.round(255 * confidence));
  return toFrame([2, epoch, start, packIds(tokenIds), bytes]);
}

export const cancelFrame = () => toFrame([4]);

const isCount = (value) => Number.isInteger(value) && value >= 0 && value <= MAX_POSITION;
const isText = (value) => typeof value === "string" && value.length <= 512;
const isBytes = (value) => value instanceof Uint8Array;
const isFlag = (value) => typeof value === "boolean";
const isPatience = (value) => Number.isInteger(value) && value >= -1 && value <= 60_000;
const isFinish = (value) => value === null || value === "stop" || value === "length";
// Of each message: its name and, in their order, its fields with what they must be. From `least` on they may be missing.
const DOWN = {
  11: { kind: "opened", least: 7, fields: [["session", isText], ["target", isText], ["vocabulary", isText],
    ["numVocab", isCount], ["maxContext", isCount], ["limit", isCount], ["numReused", isCount], ["publicKey", isBytes]] },
  12: { kind: "verified", least: 5, fields: [["epoch", Number.isInteger], ["start", isCount], ["tokenIds", isBytes],
    ["numAccepted", isCount], ["numDrafted", isCount], ["finish", isFinish], ["logprobs", Array.isArray], ["signature", isBytes]] },
  13: { kind: "fault", least: 2, fields: [["code", isText], ["message", isText], ["mayRetry", isFlag], ["retryAfterMs", Number.isInteger]] },
  14: { kind: "load", least: 2, fields: [["patienceMs", isPatience], ["maxDrafts", isCount]] },
};

/** What a verifier said, from an ArrayBuffer. */
export function readFrame(buffer) {
  const bytes = new Uint8Array(buffer);
  let end = bytes.length - 1;
  while (end >= 0 && bytes[end] === 0) end--;
  if (bytes[end] !== END) throw protocolError("sent a frame without an end");
  let values;
  try {
    values = decode(bytes.subarray(0, end));
  } catch {
    throw protocolError("sent what is no message");
  }
  const known = Array.isArray(values) ? DOWN[values.shift()] : undefined;
  if (!known || values.length < known.least || values.length > known.fields.length) throw protocolError("sent what is no message");
  const message = { kind: known.kind };
  values.forEach((value, at) => {
    const [name, isRight] = known.fields[at];
    if (!isRight(value)) throw protocolError(`sent a ${name} that is none`);
    message[name] = value;
  });
  if (message.kind === "verified") {
    message.tokenIds = unpackIds(message.tokenIds);
    message.finish ??= null;
  }
  return message;
}
