// Texts with places to be filled: {订单号}. Knows texts only.

const PLACE = /\{([^{}\n":;]{1,40})\}/g;

// The names of the places in a text, each once.
export function variables(text) {
  return [...new Set([...text.matchAll(PLACE)].map(([, name]) => name.trim()))];
}

// The text with values in their places; a place without a value stays.
export function fill(text, values) {
  return text.replace(PLACE, (place, name) => (Object.hasOwn(values, name.trim()) ? values[name.trim()] : place));
}
