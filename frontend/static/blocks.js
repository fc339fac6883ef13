// Markdown shown as it grows. The server renders it (POST /render), block by block; only the last block is sent again.
// Until that worked, and where it cannot, the text stands there as it is.

import { $, copier, element } from "./dom.js";
import { say } from "./language.js";
import { post } from "./stream.js";

const SLICES = [4000, 15_000]; // UTF-16 units of one request; the second when a single block fills the first.
const LEAST_MS = 120;
const MOST_MS = 600; // However slow the browser is, it shows what has come.
const FAILED_MS = 1000;
const RETRIES = 10; // After the text has stopped growing, while the server is busy.
const SHARE = 10; // Of ten milliseconds, the server works at most one for one reader, and the browser one on what came.
const SHORT = 20; // Characters of a cell that are kept on one line.
const LONGEST_NUMBER = 60;
const REFERENCES = /^ {0,3}\[[^\]\n]+\]:/m;

let queue = Promise.resolve(); // One request at a time.

function render(text) {
  const answer = queue.then(async () => {
    // A text in the midst of a character is no text.
    const whole = text.toWellFormed?.() ?? text.replace(/[\ud800-\udbff]$/, "");
    const response = await post("render", { text: whole }, { key: $("key").value });
    const took = /render;dur=([\d.]+)/.exec(response.headers.get("Server-Timing"));
    return { blocks: (await response.json()).blocks, took: Number(took?.[1] ?? 0) };
  });
  queue = answer.catch(() => {});
  return answer;
}

function lineStarts(text) {
  const starts = [0];
  for (const match of text.matchAll(/\r\n?|\n/g)) starts.push(match.index + match[0].length);
  return starts;
}

// Whether a cell of a table stays on one line: a number, a date, a few words. Chinese is twice as wide.
function isShort(text) {
  if (/^[\p{N}\p{P}\p{S}\s]*$/u.test(text)) return text.length <= LONGEST_NUMBER;
  return text.length + (text.match(/[\u1100-\uffe6]/g)?.length ?? 0) <= SHORT;
}

// What a browser must add to the server's HTML: something to copy code with, and ways to scroll by keyboard. Each
// block runs in the direction of its own text; code always from left to right.
function finished(html) {
  const block = element("div", { class: "block" });
  block.innerHTML = html;
  for (const node of block.children) if (node.tagName !== "PRE") node.dir = "auto";
  for (const code of block.querySelectorAll("pre")) {
    code.tabIndex = 0;
    code.dir = "ltr";
    const language = code.dataset.language;
    const bar = element("div", { class: "code-bar" }, element("span", { text: language || say("code") }));
    bar.append(copier(say("copyCode"), say("copied"), () => code.textContent.replace(/\n$/, "")));
    const box = element("div", { class: "code" }, bar);
    code.replaceWith(box);
    box.append(code);
  }
  for (const cell of block.querySelectorAll("th, td")) {
    cell.dir = "auto";
    if (isShort(cell.textContent)) cell.className = "short";
  }
  for (const table of block.querySelectorAll("table")) {
    const box = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": say("table") });
    table.replaceWith(box);
    box.append(table);
  }
  return block;
}

export class Blocks {
  // `onClosed(text)`: a block is complete, in words.
  constructor(host, onClosed = () => {}) {
    this.host = host;
    this.onClosed = onClosed;
    this.text = "";
    this.shown = []; // {html, node}
    this.closed = 0; // How many of them nothing will change.
    this.told = 0; // How many of them were given to `onClosed`.
    this.start = 0; // Where in the text the first open one begins.
    this.next = 0; // When the server may be asked again.
    this.running = null;
    this.retry = null; // The timer of another attempt at the part that is shown as it is.
    this.tries = 0;
    this.making = 0; // Milliseconds spent on blocks since the last update.
    this.host.classList.add("plain");
    this.host.dir = "auto";
  }

  // The text so far. What was finished may grow again: its last block is then open once more.
  grow(text) {
    if (text !== this.text) this.told = Math.min(this.told, this.closed);
    this.text = text;
    if (!this.shown.length) this.host.textContent = text;
    this.running ??= this.follow();
  }

  // The text as it stays. Resolves once it is shown.
  async finish(text) {
    await this.running;
    if (text !== this.text || REFERENCES.test(text)) {
      if (!text.startsWith(this.text) || REFERENCES.test(text)) this.closed = this.start = 0;
      this.grow(text);
      await this.running;
    }
    const told = this.told;
    this.tell(this.shown.length);
    if (this.retry !== null) this.told = told;
  }

  // The first `count` blocks are complete.
  tell(count) {
    for (const { node } of this.shown.slice(this.told, count)) this.onClosed(node.textContent);
    this.told = Math.max(this.told, count);
  }

  async follow() {
    clearTimeout(this.retry);
    this.retry = null;
    let before = null;
    let failed = null;
    while (before !== this.text) {
      const wait = this.next - performance.now();
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
      before = this.text;
      const begun = performance.now();
      try {
        const took = await this.advance(before);
        this.next = begun + Math.max(LEAST_MS, SHARE * took, Math.min(MOST_MS, SHARE * this.laidOut()));
        this.tries = 0;
        failed = null;
      } catch (error) {
        this.plain(before);
        failed = error;
        this.next = begun + Math.max(FAILED_MS, error.passing ? error.retryAfter * 1000 : 0);
      }
    }
    this.running = null;
    if (failed?.passing && this.tries++ < RETRIES) {
      this.retry = setTimeout(() => (this.running ??= this.follow()), this.next - performance.now());
    }
  }

  // Milliseconds that making the newest blocks and laying them out takes the browser.
  laidOut() {
    const begun = performance.now();
    void this.host.offsetHeight;
    const took = this.making + performance.now() - begun;
    this.making = 0;
    return took;
  }

  async advance(text) {
    let took = 0;
    for (let size = SLICES[0]; ; ) {
      const part = text.slice(this.start, this.start + size);
      const whole = this.start + size >= text.length;
      const { blocks, took: now } = await render(part);
      took += now;
      if (!whole && blocks.length < 2 && size < SLICES[1]) {
        size = SLICES[1];
        continue;
      }
      this.put(blocks.map((block) => block.html));
      const keep = whole || blocks.length > 1 ? blocks.length - 1 : blocks.length;
      this.tell(this.closed + Math.max(0, keep));
      if (keep > 0) {
        this.start += keep < blocks.length ? lineStarts(part)[blocks[keep].line] : part.length;
        this.closed += keep;
      }
      if (whole) return took;
      if (!blocks.length) this.start += part.length;
      size = SLICES[0];
    }
  }

  // The blocks from the first open one on.
  put(htmls) {
    const begun = performance.now();
    if (this.host.classList.contains("plain")) {
      this.host.classList.remove("plain");
      this.host.replaceChildren();
      this.shown = [];
    }
    htmls.forEach((html, at) => {
      const old = this.shown[this.closed + at];
      if (old?.html === html) return;
      const made = { html, node: finished(html) };
      if (old) old.node.replaceWith(made.node);
      else this.host.append(made.node);
      this.shown[this.closed + at] = made;
    });
    for (const { node } of this.shown.splice(this.closed + htmls.length)) node.remove();
    this.making += performance.now() - begun;
  }

  // What could not be rendered, as it is.
  plain(text) {
    if (!this.shown.length) return void (this.host.textContent = text);
    const node = element("div", { class: "block plain", text: text.slice(this.start) });
    for (const { node: old } of this.shown.splice(this.closed)) old.remove();
    this.host.append(node);
    this.shown.push({ html: null, node });
  }
}
