// What modules of the page touch while they are imported, for tests of their functions that touch no element.
// Import it first. There is no IndexedDB, so the page's own store keeps its records in memory.

import * as store from "../../../frontend/static/store.js";

const listening = { addEventListener() {} };
const { BroadcastChannel: Channel } = globalThis;

Object.assign(globalThis, {
  ...listening,
  document: { ...listening, getElementById: () => listening },
  matchMedia: () => ({ matches: false }),
  BroadcastChannel: class extends Channel {
    constructor(name) {
      super(name);
      this.unref(); // An open channel would keep the process of the tests alive.
    }
  },
});

await store.open();

// The language of the browser, which the page follows until somebody chooses another one.
export function speak(language) {
  Object.defineProperty(navigator, "language", { value: language, configurable: true });
}

speak("en");
