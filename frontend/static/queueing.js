// While an answer has not begun: how many are before it, in words. Asks the server every second or so.

import { facts } from "./circumstances.js";
import { number, say } from "./language.js";

const FIRST_MS = 1200; // Most answers have begun by then.
const EACH_MS = 1500;

// Follows a request by its id until `signal` ends it; `tell(words)` is called when they change.
export async function follow(request, signal, tell) {
  let before = null;
  for (let wait = FIRST_MS; ; wait = EACH_MS) {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, wait);
      signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
    });
    if (signal.aborted) return;
    const place = await placeOf(request);
    if (signal.aborted) return;
    if (place === null) continue;
    const words = place ? say("inQueue", { before: number(place - 1), slots: number(facts?.slots ?? 1) }) : say("reading");
    if (words !== before) tell((before = words));
  }
}

// 1 is the next; 0: it is being answered; null: nobody knows.
async function placeOf(request) {
  try {
    const reply = await fetch(`page/facts?request=${encodeURIComponent(request)}`);
    return (await reply.json()).place ?? null;
  } catch {
    return null;
  }
}
