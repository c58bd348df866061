// A link to the verifier that served this app: one WebSocket, one message a frame. Knows how messages travel and nothing
// of what they do.

import { linkLost, OutriderError } from "./errors.js";
import { readFrame, STREAM_PATH, SUBPROTOCOL, TOKEN_PREFIX } from "./wire.js";

const CONNECT_MS = 10_000;
const NORMAL = 1000;

export const authorization = (token) => (token ? { authorization: `Bearer ${token}` } : {});

/** What a verifier says over HTTP to who shows this token; null where nobody answers in time. */
const asked = (token, patienceMs) => fetch("../v1/models", {
  headers: authorization(token), cache: "no-store", signal: AbortSignal.timeout(patienceMs),
}).catch(() => null);

/** Whether anybody is there, who may still refuse. */
export const isReached = async (token, patienceMs) => (await asked(token, patienceMs))?.status < 500;

export class Link {
  #socket = null;
  bytesUp = 0;
  bytesDown = 0;

  constructor(token) {
    this.token = token;
  }

  /** Resolves once it is open. From then on `hear` gets each message, and `lose`, once, what ended it. */
  async open(hear, lose) {
    const url = new URL(STREAM_PATH, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    // A page cannot set a header there; a second subprotocol shows the token, and is never answered with.
    const socket = (this.#socket = new WebSocket(url, [SUBPROTOCOL, ...(this.token ? [TOKEN_PREFIX + this.token] : [])]));
    socket.binaryType = "arraybuffer";
    const opening = Promise.withResolvers();
    const timer = setTimeout(() => socket.close(), CONNECT_MS);
    socket.onopen = opening.resolve;
    socket.onclose = () => opening.reject(linkLost("no verifier answers"));
    try {
      await opening.promise;
    } catch (error) {
      throw await this.#refusal(error);
    } finally {
      clearTimeout(timer);
    }
    socket.onclose = () => this.#socket === socket && lose(linkLost("the connection to the verifier broke"));
    socket.onmessage = ({ data }) => {
      if (this.#socket !== socket) return;
      this.bytesDown += data.byteLength ?? 0;
      try {
        hear(readFrame(data));
      } catch (error) {
        this.close();
        lose(error);
      }
    };
  }

  /** Why a handshake failed, which a page is not told: over HTTP it may ask. */
  async #refusal(error) {
    const response = await asked(this.token, CONNECT_MS);
    if (!response || response.status >= 500 || response.ok) return error;
    const told = await response.json().catch(() => null);
    if (!told?.error) return linkLost("what answers is no verifier");
    return new OutriderError(told.error.code, told.error.message, { mayRetry: response.status === 429, retryAfterMs: 1000 });
  }

  send(frame) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return; // whether it is lost, those find out who listen
    this.#socket.send(frame);
    this.bytesUp += frame.length;
  }

  close() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(NORMAL);
  }
}
