// A conversation's bubbles, and an answer in one, token by token: who guessed it, whether it is verified, what is taken back.
// Text is set as text, never as markup. Characters are counted as the server does: code points, not UTF-16 units.

const GONE_MS = 1600; // how long what is taken back is seen struck
const chars = (text) => Array.from(text);

export class Answer {
  constructor(element) {
    this.element = element;
    this.parts = []; // {node, author, isVerified}
  }

  get text() {
    return this.parts.map((part) => part.node.textContent).join("");
  }

  get numProvisional() {
    return this.parts.filter((part) => !part.isVerified).length;
  }

  /** More text. `by`: of each of its tokens who guessed it; null where the target had to say it. */
  append(text, isVerified, by) {
    const author = !by ? "" : by.every((each) => each !== null) ? "drafted" : "own";
    const part = { node: document.createElement("span"), author, isVerified };
    part.node.textContent = text;
    if (by) part.node.title = by.map((each) => each ?? "the target").join(", ");
    this.parts.push(part);
    this.element.append(part.node);
    paint(part);
  }

  /** The first `length` characters are verified by now. */
  confirm(length) {
    for (const part of this.parts) {
      length -= chars(part.node.textContent).length;
      if (length < 0) return;
      part.isVerified = true;
      paint(part);
    }
  }

  /** Only the first `length` characters stay; the others are struck, and then gone. */
  retract(length) {
    const kept = [];
    let taken = "";
    for (const part of this.parts) {
      const text = chars(part.node.textContent);
      const stays = text.slice(0, Math.max(0, length)).join("");
      taken += text.slice(Math.max(0, length)).join("");
      length -= text.length;
      if (stays) {
        part.node.textContent = stays;
        kept.push(part);
      } else part.node.remove();
    }
    this.parts = kept;
    const struck = document.createElement("del");
    struck.textContent = taken;
    this.element.append(struck);
    setTimeout(() => struck.remove(), GONE_MS);
    return taken;
  }
}

function paint({ node, author, isVerified }) {
  node.className = isVerified ? author : "provisional";
}

const $ = (id) => document.getElementById(id);

/** Room for what a role says, at the conversation's end. */
export function bubble(role, text = "") {
  const element = document.createElement("article");
  element.className = role;
  element.setAttribute("aria-label", role === "user" ? "You" : "Answer");
  element.textContent = text;
  $("hint").hidden = true;
  $("log").append(element);
  element.scrollIntoView({ block: "end" });
  return element;
}

/** The conversation is over: nothing of it stays on the page. */
export function clear() {
  document.querySelectorAll("article").forEach((element) => element.remove());
  $("hint").hidden = false;
}

const MAX_CELLS = 240; // the strip shows the right end of them
const CELLS_AHEAD = 24; // room right of the frontier, so that it stands still

/** Verified tokens, the frontier, and right of it what was guessed ahead or said provisionally. */
export function drawStrip(strip, parts, ahead) {
  const told = parts.filter((part) => !part.isVerified).length;
  const right = [...Array(Math.min(told, MAX_CELLS)).fill("provisional"), ...Array(Math.max(0, ahead - told)).fill("ahead")];
  const left = parts.filter((part) => part.isVerified).slice(-MAX_CELLS).map((part) => part.author || "own");
  const room = Array(Math.max(0, CELLS_AHEAD - right.length)).fill("room");
  const cell = (name) => Object.assign(document.createElement("i"), { className: name });
  strip.replaceChildren(...[...left, "frontier", ...right, ...room].map(cell));
  const ends = told ? `${told} provisional` : `${ahead} guessed ahead`;
  strip.setAttribute("aria-label", `Pieces of the answer: ${left.length} verified up to the frontier, ${ends}`);
}
