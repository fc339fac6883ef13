// As much of the DOM as plain.js reads of an answer: element("UL", {class: "tight"}, …), with texts as children.

globalThis.Node = { ELEMENT_NODE: 1, TEXT_NODE: 3 };

const text = (data) => ({ nodeType: Node.TEXT_NODE, data, textContent: data, cloneNode: () => text(data) });
const rowsIn = (node) => node.children.flatMap((child) => (child.tagName === "TR" ? [child] : rowsIn(child)));

export function element(tag, { class: names = "", start, ...attributes } = {}, ...given) {
  const childNodes = given.map((child) => (typeof child === "string" ? text(child) : child));
  return {
    nodeType: Node.ELEMENT_NODE,
    tagName: tag,
    localName: tag.toLowerCase(),
    start,
    childNodes,
    classList: { contains: (name) => names.split(" ").includes(name) },
    getAttribute: (name) => attributes[name] ?? null,
    append: (child) => childNodes.push(child),
    cloneNode: () => element(tag, { class: names, start, ...attributes }, ...childNodes),
    get textContent() {
      return childNodes.map((child) => child.textContent).join("");
    },
    get children() {
      return childNodes.filter((child) => child.nodeType === Node.ELEMENT_NODE);
    },
    get rows() {
      return rowsIn(this);
    },
    get cells() {
      return this.children;
    },
  };
}

globalThis.document = { createElement: (tag) => element(tag.toUpperCase()) };
