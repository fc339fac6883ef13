// What the model was given of documents, below its answer: each passage can be opened.

import { element } from "./dom.js";
import { say } from "./language.js";

function where({ number, name, page, section }) {
  const parts = [name, page && say("sourcePage", { page }), section];
  return `[${number}] ${parts.filter(Boolean).join(" · ")}`;
}

export function sourcesOf(sources) {
  const passages = sources.map((source) =>
    element(
      "li",
      {},
      element(
        "details",
        {},
        element("summary", { text: where(source) }),
        element("div", { class: "passage", text: source.text, tabindex: 0 }),
      ),
    ),
  );
  return element(
    "details",
    { class: "sources" },
    element("summary", { text: say("sources", { count: sources.length }) }),
    element("ul", {}, ...passages),
  );
}
