// What is shown of an answer as plain text, without Markdown: to be pasted where nothing is rendered.

const BLOCK = /^(P|H\d|UL|OL|BLOCKQUOTE|PRE|TABLE|HR)$/;

function inline(node) {
  let text = "";
  for (const child of node.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) text += child.data.replace(/\s*\n\s*/g, " ");
    else if (child.tagName === "BR") text = `${text.trimEnd()}\n`;
    else if (child.localName === "math" && child.getAttribute("display") === "block") text += ` ${child.textContent} `;
    else text += inline(child);
  }
  return text.replace(/\n /g, "\n");
}

function list(node) {
  let number = node.start ?? 1;
  const items = [...node.children].map((item) => {
    const task = item.classList.contains("task");
    const mark = task ? "" : node.tagName === "OL" ? `${number++}. ` : "• ";
    const lines = blocks(item, "\n").split("\n");
    return mark + lines.join(`\n${" ".repeat(task ? 2 : mark.length)}`);
  });
  return items.join("\n");
}

function table(node) {
  return [...node.rows].map((row) => [...row.cells].map((cell) => inline(cell).trim().replaceAll("\n", " ")).join("\t")).join("\n");
}

function block(node) {
  if (node.tagName === "UL" || node.tagName === "OL") return list(node);
  if (node.tagName === "TABLE") return table(node);
  if (node.tagName === "PRE") return node.textContent.replace(/\n$/, "");
  if (node.tagName === "BLOCKQUOTE") return blocks(node, "\n\n");
  if (node.tagName === "HR") return "———";
  return inline(node).trim();
}

// Blocks within `node`, also within the boxes that the page has put around them, and text between them.
function blocks(node, between) {
  const parts = [];
  let loose = document.createElement("span");
  const endLoose = () => {
    const text = inline(loose).trim();
    if (text) parts.push(text);
    loose = document.createElement("span");
  };
  for (const child of node.childNodes) {
    if (child.nodeType !== Node.ELEMENT_NODE) loose.append(child.cloneNode());
    else if (BLOCK.test(child.tagName)) (endLoose(), parts.push(block(child)));
    else if (child.tagName !== "DIV") loose.append(child.cloneNode(true));
    else if (!child.classList.contains("code-bar")) (endLoose(), parts.push(blocks(child, between)));
  }
  endLoose();
  return parts.filter(Boolean).join(between);
}

export function plainText(host) {
  return host.classList.contains("plain") ? host.textContent : blocks(host, "\n\n");
}
