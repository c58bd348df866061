// What can go wrong, by the codes that the verifier and the Python device use, too.

export class OutriderError extends Error {
  constructor(code, message, { mayRetry = false, retryAfterMs = 0 } = {}) {
    super(message);
    Object.assign(this, { code, mayRetry, retryAfterMs });
  }
}

export const protocolError = (what) => new OutriderError("protocol", `the verifier ${what}; reload the app`);
export const linkLost = (message) => new OutriderError("link_lost", message, { mayRetry: true });
