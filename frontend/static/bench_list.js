// A list of thousands of rows of which only those in view are in the page. Knows elements; nothing of the rows.

import { element } from "./dom.js";

const HEIGHT = 60; // Pixels of a row, as in bench.css.
const MORE = 8; // Rows above and below the view.

export class LongList {
  // `fill(node, item)` writes an item into its element; `onPick(item)`: it was chosen.
  constructor(box, space, { fill, onPick }) {
    this.box = box;
    this.space = space;
    this.fill = fill;
    this.onPick = onPick;
    this.items = [];
    this.picked = null;
    this.nodes = new Map(); // Index to element.
    box.addEventListener("scroll", () => this.show(), { passive: true });
    new ResizeObserver(() => this.show()).observe(box);
    box.addEventListener("keydown", (event) => this.key(event));
    space.addEventListener("click", (event) => {
      const row = event.target.closest("[data-at]");
      if (row) this.pick(this.items[Number(row.dataset.at)]);
    });
  }

  set(items) {
    this.items = items;
    for (const node of this.nodes.values()) node.remove();
    this.nodes.clear();
    this.space.style.height = `${items.length * HEIGHT}px`;
    if (!items.includes(this.picked)) this.picked = null;
    this.show();
  }

  show() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / HEIGHT) - MORE);
    const last = Math.min(this.items.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / HEIGHT) + MORE);
    for (const [at, node] of this.nodes) {
      if (at >= first && at < last) continue;
      node.remove();
      this.nodes.delete(at);
    }
    for (let at = first; at < last; at += 1) if (!this.nodes.has(at)) this.add(at);
  }

  add(at) {
    const node = element("div", {
      class: "b-row",
      role: "option",
      id: `b-row-${at}`,
      "aria-setsize": this.items.length,
      "aria-posinset": at + 1,
      data: { at },
    });
    node.style.transform = `translateY(${at * HEIGHT}px)`;
    this.nodes.set(at, node);
    this.space.append(node);
    this.refresh(this.items[at], at);
  }

  refresh(item, at = this.items.indexOf(item)) {
    const node = this.nodes.get(at);
    if (!node) return;
    node.ariaSelected = String(item === this.picked);
    this.fill(node, item);
  }

  pick(item) {
    const before = this.picked;
    this.picked = item ?? null;
    const at = this.items.indexOf(item);
    if (at >= 0) {
      const top = at * HEIGHT;
      if (top < this.box.scrollTop) this.box.scrollTop = top;
      const bottom = top + HEIGHT - this.box.clientHeight;
      if (bottom > this.box.scrollTop) this.box.scrollTop = bottom;
      this.show();
      this.box.setAttribute("aria-activedescendant", `b-row-${at}`);
    }
    if (before) this.refresh(before);
    if (item) this.refresh(item);
    this.onPick(this.picked);
  }

  step(by) {
    const at = (this.picked ? this.items.indexOf(this.picked) : by > 0 ? -1 : 0) + by;
    const item = this.items[Math.max(0, Math.min(this.items.length - 1, at))];
    if (item) this.pick(item);
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / HEIGHT) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.step(steps[event.key]);
  }
}
