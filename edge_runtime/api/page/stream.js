// The endpoint's events, one by one. Knows nothing of what they are shown as.

/** The fields of an error reply, as an Error with the HTTP status. */
async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  const error = new Error(body.error?.message ?? `the server answered with status ${response.status}`);
  error.status = response.status;
  return error;
}

/** A JSON reply; with `body` what a POST of it gives. Throws what the server refused. */
export async function ask(path, key, body, signal) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const post = { method: "POST", headers: { ...headers, "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, { signal, cache: "no-store", ...(body ? post : { headers }) });
  if (!response.ok) throw await refusal(response);
  return response;
}

/** Chunks of an answer as they come. Throws what broke it. */
export async function* chunks(body, key, signal) {
  const response = await ask("v1/chat/completions", key, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the answer broke off; is the server still there?");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.slice("data: ".length);
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
  }
}
