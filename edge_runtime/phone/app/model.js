// A small decoder in ONNX Runtime's WebAssembly build, and the list of tokens that its cache holds. Takes graphs of both
// of the exporter's builders: past keys and values go in, present ones come out. Knows token ids only.

import * as ort from "./lib/onnxruntime.mjs";

const PASS_TOKENS = 64; // a longer prompt is run in passes of this size, so that its logits stay small

export class Model {
  cached = []; // the ids that the cache holds

  /** `files`: ArrayBuffers by name, of those that the manifest lists. */
  static async load(manifest, files) {
    ort.env.wasm.numThreads = 1; // more would take an isolated page
    ort.env.logLevel = "error";
    const beside = Object.keys(files).filter((name) => name.startsWith(`${manifest.file}.`));
    const externalData = beside.map((name) => ({ path: name, data: new Uint8Array(files[name]) }));
    const session = await ort.InferenceSession.create(new Uint8Array(files[manifest.file]), { executionProviders: ["wasm"], externalData });
    return new Model(session, manifest.max_context, manifest.id_map ? readNpy(files[manifest.id_map]) : null);
  }

  constructor(session, maxContext, idMap) {
    Object.assign(this, { session, maxContext, idMap });
    this.past = session.inputMetadata.filter(({ name }) => name.startsWith("past_key_values."));
    this.takesPositions = session.inputNames.includes("position_ids");
    this.cut(0);
  }

  /** Keep the first `length` tokens. */
  cut(length) {
    if (length && length >= this.cached.length) return;
    this.cached.length = length;
    const before = this.cache;
    this.cache = {};
    for (const { name, shape } of this.past) {
      const [, heads, , size] = shape;
      const kept = new Float32Array(heads * length * size);
      if (length) {
        const { data, dims } = before[name];
        for (let head = 0; head < heads; head++) {
          const start = head * dims[2] * size;
          kept.set(data.subarray(start, start + length * size), head * length * size);
        }
      }
      this.cache[name] = new ort.Tensor("float32", kept, [1, heads, length, size]);
    }
  }

  /** Append `tokenIds`. Gives the logits after the last; they are good until the next call. */
  async extend(tokenIds) {
    let logits;
    try {
      for (let start = 0; start < tokenIds.length; start += PASS_TOKENS) {
        logits = await this.#run(tokenIds.slice(start, start + PASS_TOKENS));
      }
    } catch (error) {
      this.cut(0);
      throw error;
    }
    return logits;
  }

  async #run(tokenIds) {
    const begin = this.cached.length, count = tokenIds.length;
    const tensor = (length, value) => new ort.Tensor("int64", BigInt64Array.from({ length }, (_, at) => BigInt(value(at))), [1, length]);
    const feeds = { input_ids: tensor(count, (at) => tokenIds[at]), attention_mask: tensor(begin + count, () => 1), ...this.cache };
    if (this.takesPositions) feeds.position_ids = tensor(count, (at) => begin + at);
    const results = await this.session.run(feeds);
    for (const { name } of this.past) this.cache[name] = results[name.replace("past_key_values", "present")];
    this.cached.push(...tokenIds);
    const { data, dims } = results.logits;
    return data.subarray((dims[1] - 1) * dims[2]);
  }
}

/** An .npy file of whole numbers, four bytes each, in one row. */
function readNpy(buffer) {
  const length = new DataView(buffer).getUint16(8, true);
  return new Int32Array(buffer.slice(10 + length));
}
