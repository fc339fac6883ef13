// A conversation as a tree of messages: versions beside one another, and the path from the first to the last shown.
// Knows records {id, parent, role, content, reasoning, created}; no storage, no page.

export function pathTo(messages, leaf) {
  const path = [];
  const seen = new Set(); // An imported file may hold a circle.
  for (let at = messages.get(leaf); at && !seen.has(at.id); at = messages.get(at.parent)) {
    seen.add(at.id);
    path.unshift(at);
  }
  return path;
}

function children(messages, parent) {
  const found = [...messages.values()].filter((message) => message.parent === parent);
  return found.sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
}

// All messages at this place of the conversation, oldest first.
export function versions(messages, message) {
  return children(messages, message.parent);
}

// From here down to the end, along the newest versions. null starts at the top.
export function newestLeaf(messages, id) {
  const seen = new Set();
  for (;;) {
    const below = children(messages, id).filter((message) => !seen.has(message.id));
    if (!below.length) return id;
    id = below.at(-1).id;
    seen.add(id);
  }
}

// Whether anything of the answer has come.
export const hasText = ({ content, reasoning }) => Boolean(content || reasoning);

// What the model is sent: the path from `start` on, without its thinking and without answers that never came.
export function toSend(path, start, system) {
  const from = Math.max(0, path.findIndex((message) => message.id === start));
  const turns = path.slice(from).map(({ role, content }) => ({ role, content }));
  const messages = turns.filter(({ role, content }) => role === "user" || content.trim());
  return system ? [{ role: "system", content: system }, ...messages] : messages;
}

export function size(messages) {
  return messages.reduce((sum, { content }) => sum + content.length + 8, 0);
}

// Where the conversation must start so that it has about `goal` characters less; null: nothing is left to drop.
export function startAfterDropping(path, start, goal) {
  const from = Math.max(0, path.findIndex((message) => message.id === start));
  let dropped = 0;
  let found = null;
  for (let at = from; at < path.length; at += 1) {
    if (at > from && path[at].role === "user") {
      found = path[at].id;
      if (dropped >= goal) return found;
    }
    dropped += path[at].content.length + 8;
  }
  return found;
}
