// What this device remembers: answers, verified and provisional, and the few things the app needs without a network, in
// IndexedDB; the drafter's files in the browser's cache, checked against their hashes. Knows no session.

import { authorization } from "./link.js";
import { OutriderError } from "./errors.js";

const VERSION = 1;
const CACHE = "drafter-";

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(new OutriderError("not_kept", `this browser keeps nothing (${request.error?.name})`));
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

  #objects(name, mode) {
    // What was shown must outlive a crash: a step counts as kept once it is on the disk.
    return this.database.transaction(name, mode, { durability: mode === "readwrite" ? "strict" : "default" }).objectStore(name);
  }

  get(name) {
    return done(this.#objects("settings", "readonly").get(name));
  }

  set(name, value) {
    return done(this.#objects("settings", "readwrite").put(value, name));
  }

  /** All answers of a conversation, oldest first. */
  async answers(conversation) {
    const all = await done(this.#objects("answers", "readonly").getAll());
    return all.filter((answer) => answer.conversation === conversation);
  }

  /** Those that are not verified to their end, oldest first. */
  async unverified() {
    const all = await done(this.#objects("answers", "readonly").getAll());
    return all.filter(({ finish, provisionalIds }) => !finish || provisionalIds.length);
  }

  /** Keep an answer as it is now. Gives it a name the first time. */
  async keep(answer) {
    answer.id = await done(this.#objects("answers", "readwrite").put(answer));
  }
}

/** The drafter's manifest: the verifier's, or where it cannot be had the one that was kept. */
export async function drafterManifest(store, token) {
  const response = await fetch("drafter/manifest.json", { headers: authorization(token), cache: "no-store" }).catch(() => null);
  if (response?.ok) {
    const manifest = await response.json();
    await store.set("drafter", manifest);
    return manifest;
  }
  if (response?.status === 401) throw new OutriderError("unauthorized", "this verifier wants a token");
  const kept = await store.get("drafter");
  if (!kept) throw new OutriderError("not_here", "the drafter is not on this device yet; load the app once with the verifier at hand");
  return kept;
}

/** The drafter's files by name, from this device or else from the verifier. `progress` hears of bytes there and in all. */
export async function drafterFiles(manifest, token, progress) {
  const name = CACHE + manifest.fingerprint;
  for (const other of await caches.keys()) if (other.startsWith(CACHE) && other !== name) await caches.delete(other);
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
  return files;
}

async function fetched(file, token, progress) {
  const response = await fetch(`drafter/${file}`, { headers: authorization(token), cache: "no-store" });
  if (!response.ok) throw new OutriderError("not_here", `${file} cannot be had (status ${response.status}); try again`);
  const size = Number(response.headers.get("content-length")), reader = response.body.getReader(), pieces = [];
  for (let there = 0; ;) {
    const { value, done } = await reader.read();
    if (done) return new Blob(pieces).arrayBuffer();
    pieces.push(value);
    progress(file, (there += value.length), size);
  }
}
