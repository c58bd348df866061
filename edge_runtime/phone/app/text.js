// Text to token ids and back, on the device. Ids become bytes and bytes become text, so a character split over tokens
// comes out once and whole. Knows no model and no session.

import { Template } from "./lib/jinja.mjs";
import { Tokenizer } from "./lib/tokenizers.mjs";

const BYTE_OF = byteAlphabet();
const SPACE_MARK = "\u2581";

/** Byte-level BPE writes each byte as one visible character: itself, or the next free one from U+0100. */
function byteAlphabet() {
  const isVisible = (byte) => (byte >= 33 && byte < 127) || (byte >= 161 && byte < 173) || byte >= 174;
  const bytes = [...Array(256).keys()], hidden = bytes.filter((byte) => !isVisible(byte));
  return new Map([...bytes.filter(isVisible).map((byte) => [String.fromCodePoint(byte), byte]),
    ...hidden.map((byte, at) => [String.fromCodePoint(256 + at), byte])]);
}

const textOf = (token) => (typeof token === "string" ? token : token?.content ?? "");

function kindsOf(decoder) {
  return decoder ? [decoder.type, ...(decoder.decoders ?? []).flatMap(kindsOf)] : [];
}

export class TextCodec {
  #encoder = new TextEncoder();

  /** `tokenizer` and `config` as in a model's folder; `template` its chat template, "" for none. */
  constructor(tokenizer, config, template) {
    this.tokenizer = new Tokenizer(tokenizer, config);
    this.template = template ? new Template(template) : null;
    this.marks = { bos_token: textOf(config.bos_token), eos_token: textOf(config.eos_token) };
    this.added = new Map(tokenizer.added_tokens.map((token) => [token.id, token]));
    this.tokens = new Map(Object.entries(tokenizer.model.vocab).map(([token, id]) => [id, token]));
    const kinds = kindsOf(tokenizer.decoder);
    this.isByteLevel = kinds.includes("ByteLevel");
  }

  /** The ids of a conversation, up to where the model is to answer. */
  encodeChat(messages) {
    if (!this.template) return this.tokenizer.encode(messages.map(({ content }) => content).join("\n\n")).ids;
    const text = this.template.render({ messages, tools: null, add_generation_prompt: true, ...this.marks });
    return this.tokenizer.encode(text, { add_special_tokens: false }).ids;
  }

  /** What ids say so far; nothing of a character whose last byte is not there, unless this `isWhole`. */
  decode(tokenIds, { isWhole = false } = {}) {
    const decoder = new TextDecoder();
    const text = tokenIds.map((id) => decoder.decode(this.#bytesOf(id), { stream: true })).join("");
    return isWhole ? text + decoder.decode() : text;
  }

  #bytesOf(id) {
    const added = this.added.get(id);
    if (added) return this.#encoder.encode(added.special ? "" : added.content);
    const token = this.tokens.get(id);
    if (token === undefined) return new Uint8Array();
    if (this.isByteLevel) {
      const bytes = Array.from(token, (character) => BYTE_OF.get(character));
      return bytes.includes(undefined) ? this.#encoder.encode(token) : Uint8Array.from(bytes);
    }
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
    return byte ? Uint8Array.of(parseInt(byte[1], 16)) : this.#encoder.encode(token.replaceAll(SPACE_MARK, " "));
  }
}
