// The conversation under the reader's eyes: asking, answering, and what can be done with each turn.

import { countDown, facts, hasNotice, look, showNotice } from "./circumstances.js";
import * as composer from "./composer.js";
import { adopt, ask, attached, copy, ready } from "./documents.js";
import { $, newId, touch } from "./dom.js";
import * as key from "./key.js";
import { say } from "./language.js";
import * as presets from "./presets.js";
import { follow } from "./queueing.js";
import { full, reason } from "./reasons.js";
import * as sessions from "./sessions.js";
import { Refused } from "./stream.js";
import { tab } from "./tabs.js";
import { hasText, size, startAfterDropping, toSend } from "./tree.js";
import * as view from "./view.js";

const SAVE_MS = 400;
const BEAT_MS = 3000;
const NEXT = "next"; // As the start of a conversation: the question that is sent next.
const { state } = sessions;
const running = new Map(); // Conversation id to {message, controller}: one answer at a time in each.

export const current = () => (state.current ? running.get(state.current.id) : undefined);
export const beingWritten = () => [...running.values()].map(({ message }) => message);

let looking = 0;

export function showAll() {
  view.showTurns(facts?.model ?? "Youtu", acts);
  showState();
  // Another tab writes it. Should that tab die, nobody would say so.
  const elsewhere = sessions.path().some(({ open }) => open && open.tab !== tab);
  clearTimeout(looking);
  if (elsewhere) looking = setTimeout(lookAgain, sessions.STALE_MS);
}

// What other tabs did to the conversation shown.
export async function lookAgain() {
  if (current()) return;
  await sessions.again(beingWritten());
  showAll();
}

export function showState() {
  composer.showRunning(Boolean(current()));
  $("list").classList.toggle("running", Boolean(current()));
  view.showGauge(facts?.context);
}

let beginning = false; // From Enter or a click until the answer is under way.
const busy = () => beginning || Boolean(current());

// `prepare()` gives the question to be answered, or the answer to go on with, once it is kept. One at a time, also
// while the disk is slow.
async function begin(prepare, options) {
  if (busy()) return;
  beginning = true;
  let asked;
  try {
    asked = await prepare();
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    return view.unsaved(error);
  } finally {
    beginning = false;
  }
  // The reader may have gone to another conversation meanwhile; here, the question is offered to be tried again.
  if (state.current?.id !== asked.conversation) return;
  await (asked.role === "user" ? answer(asked, options) : goOn(asked));
}

// What is in the field.
export async function send() {
  if (!composer.text().trim() || busy() || (attached() && !(await ready()))) return;
  const text = composer.text();
  if (!text.trim()) return;
  const prepare = async () => {
    composer.take();
    try {
      const asked = await put(text);
      await composer.sent();
      return asked;
    } catch (error) {
      await composer.restore();
      throw error;
    }
  };
  await begin(prepare, { giveBack: true });
}

async function put(text) {
  const parent = state.leaf;
  const conversation = state.current ?? (await created(text));
  const asked = sessions.message({ conversation: conversation.id, parent, role: "user", content: text });
  await sessions.append(asked);
  navigator.storage?.persist?.().catch(() => {}); // What the browser answers is shown in the settings.
  if (conversation.start === NEXT) await sessions.change(conversation.id, { start: asked.id });
  if (state.current === conversation) history.replaceState(null, "", `#/c/${conversation.id}`);
  return asked;
}

async function created(text) {
  const conversation = await sessions.create(sessions.titleFrom(text), composer.preset(), composer.thinking());
  if (attached()) await adopt(conversation.id);
  return conversation;
}

// Ask for an answer to `asked`, the last message shown. If none comes, the question goes back to where it was typed
// (`giveBack`), or what was shown before is shown again (`back`, a message's id).
async function answer(asked, { giveBack = false, back = null } = {}) {
  const { id: conversation } = state.current;
  const open = { tab, beat: Date.now() };
  const message = sessions.message({ conversation, parent: asked.id, role: "assistant", content: "", open });
  await write(message, () => sessions.append(message), () => takeBack(asked, message, { giveBack, back }));
}

// The answer goes on where it stopped; if nothing comes, it stays as it was.
async function goOn(message) {
  const { facts: before, end } = message;
  const come = message.content.length;
  delete message.facts;
  delete message.end;
  message.open = { tab, beat: Date.now() };
  const restore = () => {
    delete message.end;
    return sessions.save(Object.assign(message, before && { facts: before }, end && { end }));
  };
  await write(message, () => sessions.save(message), restore, { come, before });
}

// Have the model write `message`, the last one shown, and keep it. `keep` puts it among the others, `nothing` is
// done when nothing came. `going`: what there was of an answer that goes on.
async function write(message, keep, nothing, going = null) {
  const conversation = state.current;
  const preset = presets.get(conversation.preset);
  const messages = toSend(sessions.path(), conversation.start, preset.system?.trim());
  const controller = new AbortController();
  running.set(conversation.id, { message, controller });
  showNotice(null);
  await keep();
  showAll();
  view.toEnd();
  view.hush();
  const body = { messages, ...presets.options({ ...preset, thinking: conversation.thinking ?? preset.thinking }) };
  if (going) body.continue_final_message = true;
  const come = going?.come ?? 0;
  const failure = await read(body, message, controller.signal, come);
  running.delete(conversation.id);
  delete message.open;
  delete message.waiting;
  if (message.facts || hasNew(message, come)) {
    if (message.facts && going?.before) message.facts.token_count += going.before.token_count;
    await sessions.save(message).catch(view.unsaved);
  } else await nothing();
  if (!state.current || state.current.id === conversation.id) await ended(message, failure);
  if (failure && !(failure instanceof Refused && failure.status && failure.status < 500)) look();
}

const hasNew = (message, come) => (come ? message.content.length > come : hasText(message));

// Read the answer into `message`, saving as it grows. The error, if it ended in one.
async function read(body, message, signal, come) {
  const save = (after) => {
    if (Date.now() - message.open.beat < after) return;
    message.open.beat = Date.now();
    sessions.save(message).catch(view.unsaved);
  };
  // Timers of a hidden page are slowed down, so what arrives is saved as it arrives; this says "still here".
  const beating = setInterval(() => save(BEAT_MS), SAVE_MS);
  try {
    for (;;) {
      const begun = new AbortController();
      const id = newId();
      follow(id, AbortSignal.any([signal, begun.signal]), (words) => view.wait(message, words));
      try {
        for await (const { event, data } of ask(body, { key: $("key").value, signal, id }, message.conversation)) {
          if (!begun.signal.aborted) (begun.abort(), view.wait(message, null), key.taken());
          if (event === "done") {
            const { response: _, reasoning_content: __, sources: ___, ...rest } = data;
            message.facts = rest;
          } else if (event === "sources") {
            message.sources = data.sources;
          } else if (data.reasoning_content) {
            message.reasoning = (message.reasoning ?? "") + data.reasoning_content;
          } else {
            message.content += data.delta;
          }
          if (message.waiting) showNotice(null);
          delete message.waiting;
          view.grow(message);
          save(SAVE_MS);
        }
        if (!message.facts) message.end = "broken";
        return message.facts ? null : new TypeError("the stream ended early");
      } catch (error) {
        if (!(error instanceof Refused && error.passing) || hasNew(message, come)) throw error;
        if (!(await wait(error, message, signal))) throw error;
      } finally {
        begun.abort();
        view.wait(message, null);
      }
    }
  } catch (error) {
    message.end = signal.aborted ? "stopped" : "broken";
    return signal.aborted ? null : error;
  } finally {
    clearInterval(beating);
  }
}

// Until the server is to be asked again. False: the reader does not want to wait.
async function wait(error, message, signal) {
  message.waiting = true;
  const now = new AbortController();
  if (state.current?.id === message.conversation) {
    view.grow(message);
    showNotice(error.status === 429 ? "busy" : "unavailable", {}, [
      { name: "tryNow", act: () => now.abort(), primary: true },
      { name: "cancel", act: stop },
    ]);
  }
  await countDown(error.retryAfter, AbortSignal.any([signal, now.signal]));
  return !signal.aborted;
}

// No answer came: as if nothing had been sent.
async function takeBack(asked, message, { giveBack, back }) {
  const here = state.current?.id === asked.conversation;
  await sessions.drop(message);
  if (back && here) await sessions.select(back);
  if (!giveBack) return;
  await sessions.drop(asked);
  const typed = here ? composer.text() : await sessions.draft(asked.conversation);
  const text = typed ? `${asked.content}\n${typed}` : asked.content;
  if (await sessions.removeIfEmpty(asked.conversation)) {
    if (here) history.replaceState(null, "", "#/");
    else return sessions.saveDraft(text, sessions.NEW);
  }
  if (here) composer.set(text);
  else await sessions.saveDraft(text, asked.conversation);
}

async function ended(message, failure) {
  if (hasNotice("busy", "unavailable")) showNotice(null);
  // What was clicked may be gone: whoever goes on typing, types into the question.
  if (document.activeElement === document.body && !touch.matches) $("draft").focus();
  if (failure) explain(failure, message);
  else if (isFull(message)) showNotice("contextFull", {}, [{ name: "dropOldest", act: () => dropOldest(), primary: true }]);
  showAll();
  if (message.facts || hasText(message)) await view.ended(message);
  if (message.facts) view.say(`${say("finished")}. ${message.facts.token_count} ${say("tokens")}`);
}

function isFull({ facts: done }) {
  if (!done || done.finish_reason !== "length" || !facts?.context) return false;
  return done.usage.prompt_tokens + done.usage.completion_tokens >= facts.context - 1;
}

function explain(error, message) {
  if (!(error instanceof Refused)) {
    const rest = [{ name: "resume", act: () => (showNotice(null), acts.resume(message)), primary: true }];
    return hasText(message) ? showNotice("torn", {}, rest) : showNotice("offline");
  }
  if (error.status === 401) return view.askForKey();
  if (error.contextFull) {
    const act = () => dropOldest({ resend: true });
    return showNotice(...full(error), [{ name: "dropOldest", act, primary: true }]);
  }
  if (error.code === "deadline_exceeded") return showNotice("late");
  if (["draining", "not_ready", "engine_stalled", "no_engine", "cancelled"].includes(error.code)) return showNotice("gone");
  showNotice(error.status >= 400 && error.status < 500 ? "refused" : "failed", { message: reason(error) });
}

// Leave the oldest turns out from now on, about half of what is sent; they stay to be read.
async function dropOldest({ resend = false } = {}) {
  const draft = resend ? composer.text() : "";
  const path = sessions.path();
  if (!path.length || state.current.start === NEXT) return showNotice("tooLong");
  const goal = (size(toSend(path, state.current.start)) + draft.length) / 2;
  const start = startAfterDropping(path, state.current.start, goal) ?? NEXT;
  await sessions.change(state.current.id, { start });
  showNotice(null);
  showAll();
  if (draft) await send();
}

export function stop() {
  current()?.controller.abort();
}

const acts = {
  busy,
  // Another answer to the same question, beside the first.
  again(message) {
    const prepare = async () => {
      await sessions.select(message.parent);
      return state.messages.get(message.parent);
    };
    return begin(prepare, { back: state.leaf });
  },
  // An answer to a question that has none.
  answer: (asked) => begin(() => asked),
  // The question in other words, beside the first.
  edit({ conversation, parent }, content) {
    return begin(async () => {
      state.leaf = parent;
      const asked = sessions.message({ conversation, parent, role: "user", content });
      await sessions.append(asked);
      return asked;
    });
  },
  // An answer that ended too early goes on; one that never came beyond its thinking is written again.
  async resume(message) {
    if (!message.content.trim()) return acts.again(message);
    await begin(async () => {
      await sessions.select(message.id);
      return message;
    });
  },
  async branch(message) {
    await composer.save();
    const title = say("branchOf", { title: state.current.title });
    const origin = state.current.id;
    const { id } = await sessions.branch(message.id, title);
    await copy(origin, id);
    history.pushState(null, "", `#/c/${id}`);
    await composer.change();
    showAll();
    $("draft").focus();
  },
  async version(message) {
    if (busy()) return;
    await sessions.select(view.leafBelow(message));
    showAll();
  },
  spoken: (text) => view.say(text),
};
