// The app: a conversation, its controls and its figures, on a device that drafts in the browser. Answers are made by
// session.js and kept by store.js, step by step; shown.js has them on the page.

import { Drafter } from "./drafter.js";
import { linkLost, OutriderError } from "./errors.js";
import { isReached, Link } from "./link.js";
import { Pace } from "./pace.js";
import { Session } from "./session.js";
import { Shown } from "./shown.js";
import { drafterFiles, drafterManifest, Store, take } from "./store.js";
import { TextCodec } from "./text.js";

const $ = (id) => document.getElementById(id);
const isBusy = () => $("send").hidden;
const say = (text) => ($("status").textContent = text);
const LOOK_MS = 5_000; // between two looks whether what was said offline can be verified
const REACH_MS = 3_000; // for a verifier to say that it is there
const TOKENIZER = "tokenizer.json", CONFIG = "tokenizer_config.json", TEMPLATE = "chat_template.jinja";
// Addresses of code that this page may start: only these, whatever else goes wrong.
const scripts = globalThis.trustedTypes?.createPolicy("outrider", {
  createScriptURL(name) {
    if (!["sw.js", "drafter-worker.js"].includes(name)) throw new TypeError(`${name} is no script of this app`);
    return name;
  },
});
const script = (name) => scripts?.createScriptURL(name) ?? name;

let store, drafter, codec, manifest, shown;
let token = "";
let conversation = "";
let answers = []; // of the conversation, oldest first
let session = null; // of the answer under way
const pace = new Pace();
const refused = new Set(); // answers that are not tried again until the app is loaded anew: they hold nobody up

/** A link that the switch on the page cuts. */
class SwitchedLink extends Link {
  static isCut = false;

  async open(hear, lose) {
    if (SwitchedLink.isCut) throw linkLost("the link is cut on purpose");
    this.cut = () => lose(linkLost("the link is cut on purpose"));
    await super.open(hear, lose);
    if (SwitchedLink.isCut) this.cut();
  }
}

async function send() {
  const question = $("text").value.trim();
  if (!question || $("send").disabled) return;
  if (isBusy()) return say("Not sent: an answer is still under way; Stop ends it");
  $("text").value = "";
  say("Answering");
  busy(true);
  try {
    await ask(question);
  } finally {
    busy(false);
  }
}

async function ask(question) {
  const told = (answer) => [{ role: "user", content: answer.question }, { role: "assistant", content: shown.textOf(answer) }];
  const messages = answers.filter((answer) => shown.textOf(answer)).flatMap(told); // what was not answered is not asked again
  const seed = $("seed").value === "" ? crypto.getRandomValues(new Uint32Array(1))[0] : $("seed").valueAsNumber;
  const record = {
    conversation, question, promptIds: codec.encodeChat([...messages, { role: "user", content: question }]),
    verifiedIds: [], provisionalIds: [], finish: null, target: "",
    params: { temperature: $("temperature").valueAsNumber || 0, seed }, maxTokens: $("max_tokens").valueAsNumber || 512,
  };
  await store.keep(record);
  answers.push(record);
  shown.draw(record);
  await go(record, true);
}

/** Begin an answer, or go on with it, unless another tab does. `answersAlone`: where there is no verifier, too. */
async function go(record, answersAlone) {
  busy(true);
  try {
    const work = (lock) => lock && answer(record, answersAlone);
    return await navigator.locks.request(`answer-${record.id}`, { ifAvailable: true }, work);
  } finally {
    busy(false);
    shown.tellState(record, false);
    tellWaiting();
  }
}

async function answer(record, answersAlone) {
  const link = new SwitchedLink(token);
  const own = (session = new Session(link, drafter, pace));
  if (!answersAlone) say("Verifying what was said offline");
  const { finish } = record;
  record.refusal = null;
  shown.reopen(record);
  let error = null;
  try {
    const steps = own.generate({ ...record, stopIds: manifest.stop_ids, vocabulary: manifest.tokenizer_fingerprint, answersAlone });
    for await (const events of steps) {
      record.target = own.target;
      const next = structuredClone(record);
      for (const event of events) take(next, event);
      await store.keep(next);
      for (const event of events) shown.apply(record, event);
      shown.figures(record, own, link);
    }
    if (own.isStopped) {
      record.finish = "stopped";
      record.maxTokens = record.verifiedIds.length + record.provisionalIds.length; // what is there may still be verified
      await store.keep(record);
      say("Stopped");
    } else say(record.provisionalIds.length ? "Provisional answer" : "Verified answer");
  } catch (caught) {
    error = caught;
    say(error.message);
    $("lock").hidden &&= error.code !== "unauthorized";
    if (isForGood(error)) {
      record.finish ??= finish;
      record.refusal = error.message;
      await store.keep(record);
    }
  } finally {
    session = null;
  }
  return error;
}

/** Whether the verifier will never take this answer, whoever asks. */
const isForGood = (error) =>
  error instanceof OutriderError && !error.mayRetry && !["unauthorized", "not_kept"].includes(error.code);

async function tellWaiting() {
  const { length } = (await store.unverified()).filter(({ refusal }) => !refusal);
  $("waiting").hidden = !length;
  $("waiting").textContent = `${length} to verify`;
}

/** Have verified what was said offline, and finish what was cut short, oldest first. Who wants to ask meanwhile does not
 * wait for a verifier that is not there. */
async function reconcile() {
  if (SwitchedLink.isCut || !drafter || isBusy()) return;
  const waiting = async () => (await store.unverified()).filter(({ id }) => !refused.has(id));
  if (!(await waiting()).length || !(await isReached(token, REACH_MS))) return;
  for (const record of await waiting()) {
    if (isBusy()) return;
    const known = answers.find(({ id }) => id === record.id) ?? record;
    if (lengthOf(known) !== lengthOf(record)) return location.reload(); // another tab went on with it
    const error = await go(known, false);
    if (error?.mayRetry) return;
    if (error) refused.add(record.id);
  }
}

const lengthOf = ({ verifiedIds, provisionalIds }) => verifiedIds.length + provisionalIds.length;

function busy(is) {
  $("log").setAttribute("aria-busy", is);
  $("send").hidden = is;
  $("stop").hidden = !is;
}

async function startOver() {
  session?.stop();
  conversation = crypto.randomUUID();
  await store.set("conversation", conversation);
  answers = [];
  shown?.clear();
  $("text").focus();
}

function switchLink() {
  SwitchedLink.isCut = !SwitchedLink.isCut;
  $("link").setAttribute("aria-checked", !SwitchedLink.isCut);
  $("link").textContent = SwitchedLink.isCut ? "Link cut" : "Link";
  if (SwitchedLink.isCut) session?.link.cut?.();
  else told(reconcile());
}

/** The drafter and its text, from the verifier or from this device. Asks for a token where the verifier does. */
async function prepare() {
  try {
    say("Loading the drafter");
    manifest = await drafterManifest(store, token);
    $("lock").hidden = true;
    const files = await drafterFiles(store, manifest, token, (file, there, size) => {
      $("drafter").textContent = `${file} ${Math.round((100 * there) / (size || there))} %`;
    });
    const text = (name) => (files[name] ? new TextDecoder().decode(files[name]) : "");
    codec = new TextCodec(JSON.parse(text(TOKENIZER)), JSON.parse(text(CONFIG) || "{}"), text(TEMPLATE));
    shown = new Shown(codec, manifest.name, say);
    const loaded = new Drafter(new Worker(script("drafter-worker.js"), { type: "module" }));
    await loaded.load(manifest, files);
    drafter = loaded;
  } catch (error) {
    $("lock").hidden &&= error.code !== "unauthorized";
    throw error;
  }
  $("drafter").textContent = manifest.name;
  answers = await store.answers(conversation);
  answers.forEach((answer) => shown.draw(answer));
  $("send").disabled = false;
  say("Ready");
  $("text").focus();
  await tellWaiting();
  await reconcile();
}

async function begin() {
  navigator.serviceWorker?.register(script("sw.js")).catch((error) => console.warn(error.message)); // then only online
  store = await Store.open();
  navigator.storage?.persist?.();
  token = (await store.get("token")) ?? "";
  conversation = await store.get("conversation");
  if (!conversation) await startOver();
  setInterval(() => told(reconcile()), LOOK_MS);
  await prepare();
}

const told = (work) => work.catch((error) => {
  if (!(error instanceof OutriderError)) console.error(error);
  say(error.message);
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  told(send());
});
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  told(send());
});
$("stop").addEventListener("click", () => session?.stop());
$("new").addEventListener("click", () => told(startOver()));
$("link").addEventListener("click", switchLink);
$("token").addEventListener("change", () => told((async () => {
  token = $("token").value.trim();
  await store.set("token", token);
  refused.clear();
  await (drafter ? reconcile() : prepare());
})()));
addEventListener("online", () => told(reconcile()));
told(begin());
