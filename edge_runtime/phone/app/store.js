// What this device remembers: answers, verified and provisional, and the few things the app needs without a network, in
// IndexedDB; the drafter's files in the browser's cache, checked against their hashes. Knows no session.

import { authorization } from "./link.js";
import { linkLost, OutriderError } from "./errors.js";

const VERSION = 1;
const CACHE = "drafter-";

const notKept = (error) => new OutriderError("not_kept", `this browser keeps nothing (${error?.name ?? "it gave up"})`);

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(notKept(request.error));
  });
}

export class Store {
  static async open() {
    const request = indexedDB.open("outrider", VERSION);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("answers", { keyPath: "id", autoIncrement: true });
      request.result.createObjectStore("settings");
    };
    const store = new Store();
    store.database = await done(request);
    return store;
  }

  #read(name) {
    return this.database.transaction(name, "readonly").objectStore(name);
  }

  /** What is shown must outlive a crash: it counts as kept once it is on the disk. Gives its key. */
  #put(name, ...values) {
    const transaction = this.database.transaction(name, "readwrite", { durability: "strict" });
    const request = transaction.objectStore(name).put(...values);
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(notKept(transaction.error));
    });
  }

  get(name) {
    return done(this.#read("settings").get(name));
  }

  set(name, value) {
    return this.#put("settings", value, name);
  }

  /** All answers of a conversation, oldest first. */
  async answers(conversation) {
    const all = await done(this.#read("answers").getAll());
    return all.filter((answer) => answer.conversation === conversation);
  }

  /** Those that are not verified to their end, oldest first. */
  async unverified() {
    const all = await done(this.#read("answers").getAll());
    return all.filter(({ finish, provisionalIds }) => !finish || provisionalIds.length);
  }

  /** Keep an answer as it is now. Gives it a name the first time. */
  async keep(answer) {
    answer.id = await this.#put("answers", answer);
  }
}

/** What a session's event changes of a kept answer. */
export function take(answer, event) {
  const { verifiedIds, provisionalIds } = answer;
  if (event.kind === "token" && event.isVerified) {
    verifiedIds.push(event.id);
    provisionalIds.shift();
  } else if (event.kind === "token") provisionalIds.push(event.id);
  else if (event.kind === "retracted") provisionalIds.length = event.position - answer.promptIds.length - verifiedIds.length;
  else if (event.kind === "finished") answer.finish = event.reason;
}

/** The drafter's manifest: the verifier's, or where it cannot be had that of the drafter that is here. */
export async function drafterManifest(store, token) {
  const response = await fetch("drafter/manifest.json", { headers: authorization(token), cache: "no-store" }).catch(() => null);
  if (response?.ok) return response.json();
  if (response?.status === 401) throw new OutriderError("unauthorized", "this verifier wants a token");
  const kept = await store.get("drafter");
  if (!kept) throw new OutriderError("not_here", "the drafter is not on this device yet; load the app once with the verifier at hand");
  return kept;
}

/** The drafter's files by name, from this device or else from the verifier. `progress` hears of bytes there and in all.
 * The drafter of before stays until this one is here whole. */
export async function drafterFiles(store, manifest, token, progress) {
  const name = CACHE + manifest.fingerprint;
  const cache = await caches.open(name);
  const files = {};
  for (const [file, sha256] of Object.entries(manifest.files)) {
    const kept = await cache.match(`drafter/${file}`);
    files[file] = kept ? await kept.arrayBuffer() : await fetched(file, token, progress);
    if (kept) continue;
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", files[file]));
    if (Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") !== sha256) {
      throw new OutriderError("wrong_hash", `${file} is not what the verifier's manifest names; load the app anew`);
    }
    await cache.put(`drafter/${file}`, new Response(files[file]));
  }
  await store.set("drafter", manifest);
  for (const other of await caches.keys()) if (other.startsWith(CACHE) && other !== name) await caches.delete(other);
  return files;
}

async function fetched(file, token, progress) {
  const options = { headers: authorization(token), cache: "no-store" };
  const response = await fetch(`drafter/${file}`, options).catch(() => { throw linkLost("no verifier answers"); });
  if (!response.ok) throw new OutriderError("not_here", `${file} cannot be had (status ${response.status}); try again`);
  const size = Number(response.headers.get("content-length")), reader = response.body.getReader(), pieces = [];
  for (let there = 0; ;) {
    const { value, done } = await reader.read();
    if (done) return new Blob(pieces).arrayBuffer();
    pieces.push(value);
    progress(file, (there += value.length), size);
  }
}
