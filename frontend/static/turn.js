// One turn of the conversation on the page: the question, or the answer with its thinking, facts and tools.

import { Blocks } from "./blocks.js";
import { button, composing, copier, element, sends } from "./dom.js";
import { number, say } from "./language.js";
import { sourcesOf } from "./sources.js";
import { plainText } from "./plain.js";
import { hasText } from "./tree.js";

function why(message) {
  if (message.end) return say(message.end);
  return message.facts?.finish_reason === "length" ? say("length") : say("finished");
}

function factsOf(message) {
  if (message.open) return message.waiting ? say("waiting") : "";
  const parts = [];
  if (message.facts) {
    const { timings, token_count: tokens } = message.facts;
    parts.push(`${say("ttft")} ${number(timings.ttft_s, 2)} s`, `${number(tokens)} ${say("tokens")}`);
    if (timings.tokens_per_second) parts.push(`${number(timings.tokens_per_second, 1)} ${say("speed")}`);
  }
  parts.push(why(message));
  return parts.join(" · ");
}

// ‹ 2/3 ›
function versionsBar(list, message, onVersion) {
  const at = list.findIndex(({ id }) => id === message.id);
  const bar = element("span", { class: "versions" });
  const step = (name, label, to) =>
    button(name, say(label), () => onVersion(list[to]), { disabled: !list[to] });
  bar.append(
    step("back", "earlierVersion", at - 1),
    element("span", { text: `${at + 1}/${list.length}` }),
    step("forth", "laterVersion", at + 1),
  );
  return bar;
}

export class Turn {
  // `acts`: {busy, again, edit, resume, branch, version, spoken}; `versions`: all messages at this place.
  constructor(message, { model, versions, acts }) {
    this.message = message;
    this.acts = acts;
    this.speaks = Boolean(message.open); // What was there before is not read out.
    this.node = element("article", { class: `turn ${message.role}`, data: { id: message.id } });
    this.who = element("h2", { class: "who", text: message.role === "user" ? say("you") : message.facts?.model ?? model });
    this.text = element("div", { class: "text" });
    this.tools = element("div", { class: "tools" });
    this.node.append(this.who, this.text);
    if (message.role === "assistant") {
      this.facts = element("div", { class: "facts" });
      this.node.append(this.facts);
      this.blocks = new Blocks(this.text, (text) => this.speaks && acts.spoken(text));
    } else {
      this.text.textContent = message.content;
      this.text.dir = "auto";
    }
    this.node.append(this.tools);
    this.fill(versions);
    if (message.role === "assistant") this.show();
  }

  // The tools; anew when versions come or an answer ends.
  fill(versions) {
    const { message, acts } = this;
    const key = JSON.stringify([versions.map(({ id }) => id), message.open, message.end, message.facts, hasText(message)]);
    if (key === this.filled) return;
    this.filled = key;
    this.tools.replaceChildren();
    if (message.open) return;
    const answer = message.role === "assistant";
    this.tools.append(copier(say(answer ? "copyMarkdown" : "copy"), say("copied"), () => message.content));
    if (answer) this.tools.append(copier(say("copyPlain"), say("copied"), () => this.plain(), "plain"));
    if (versions.length > 1) this.tools.append(versionsBar(versions, message, acts.version));
    if (answer) {
      this.tools.append(button("retry", say("regenerate"), () => acts.again(message)));
      const whole = message.facts && message.facts.finish_reason !== "length";
      if (!whole && hasText(message)) this.tools.append(button("resume", say("resume"), () => acts.resume(message)));
    } else {
      this.tools.append(button("edit", say("edit"), () => this.edit()));
    }
    this.tools.append(button("branch", say("branch"), () => acts.branch(message)));
  }

  // What it waits for, before it has begun.
  wait(text) {
    this.waits = text;
    this.show();
  }

  // The answer as far as it has come.
  show() {
    const { message } = this;
    this.node.classList.toggle("open", Boolean(message.open));
    const facts = (message.open && this.waits) || factsOf(message);
    if (this.facts.textContent !== facts) this.facts.textContent = facts;
    if (message.sources && this.sources?.of !== message.sources) this.quote(message.sources);
    if (message.reasoning) this.think(message.reasoning, Boolean(message.open) && !message.content);
    if (message.open && message.content) this.blocks.grow(message.content);
  }

  // Render the answer as it stays; called when it ends, or when it comes into view.
  async finish() {
    this.show();
    await this.blocks.finish(this.message.content);
    this.speaks = false;
  }

  async plain() {
    await this.finish();
    return plainText(this.text);
  }

  quote(sources) {
    this.sources?.node.remove();
    this.sources = { of: sources, node: sourcesOf(sources) };
    this.facts.before(this.sources.node);
  }

  think(text, open) {
    if (!this.thinking) {
      this.thought = element("div", { class: "thought" });
      this.summary = element("summary");
      this.thinking = element("details", { class: "thinking" }, this.summary, this.thought);
      this.thinking.addEventListener("toggle", () => this.showThought());
      this.text.before(this.thinking);
    }
    this.summary.textContent = say(open ? "thinkingNow" : "thought");
    this.thinkingText = text;
    this.showThought();
  }

  showThought() {
    if (!this.thinking.open) return;
    this.thoughtBlocks ??= new Blocks(this.thought);
    this.thoughtBlocks.grow(this.thinkingText);
  }

  // The question as a field. Enter sends as it does below; the first version stays.
  edit() {
    if (this.editing) return;
    this.editing = true;
    const area = element("textarea", { rows: 3, "aria-label": say("edit") });
    area.value = this.message.content;
    const leave = () => {
      this.editing = false;
      form.replaceWith(this.text);
      this.tools.hidden = false;
    };
    const send = () => {
      if (!area.value.trim() || this.acts.busy()) return;
      leave();
      this.acts.edit(this.message, area.value);
    };
    const form = element(
      "div",
      { class: "editing" },
      area,
      element(
        "div",
        { class: "actions end" },
        element("button", { type: "button", text: say("cancel"), on: { click: leave } }),
        element("button", { type: "button", class: "primary", text: say("send"), on: { click: send } }),
      ),
    );
    area.addEventListener("keydown", (event) => {
      if (composing(event)) return;
      if (event.key === "Escape") {
        event.stopPropagation();
        leave();
      } else if (sends(event)) {
        event.preventDefault();
        send();
      }
    });
    this.text.replaceWith(form);
    this.tools.hidden = true;
    area.focus();
  }
}
