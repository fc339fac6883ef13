import assert from "node:assert/strict";
import test from "node:test";

import { migrated } from "../../../frontend/static/migration.js";
import { newestLeaf, pathTo, size, startAfterDropping, toSend, versions } from "../../../frontend/static/tree.js";
import { fill, variables } from "../../../frontend/static/variables.js";

// q1 -> a1 (and its second version a2) -> q2; b1 -> c1 is the other beginning.
const message = (id, parent, role, created, content = id) => ({ id, parent, role, created, content });
const TREE = new Map(
  [
    message("q1", null, "user", 1),
    message("a2", "q1", "assistant", 3),
    message("a1", "q1", "assistant", 2),
    message("q2", "a1", "user", 4),
    message("b1", null, "user", 5),
    message("c1", "b1", "assistant", 6),
  ].map((one) => [one.id, one]),
);
const ids = (messages) => messages.map(({ id }) => id);

test("the path to a message, and its versions from the oldest", () => {
  assert.deepEqual(ids(pathTo(TREE, "q2")), ["q1", "a1", "q2"]);
  assert.deepEqual(pathTo(TREE, "gone"), []);
  assert.deepEqual(ids(versions(TREE, TREE.get("a2"))), ["a1", "a2"]);
  assert.deepEqual(ids(versions(TREE, TREE.get("q1"))), ["q1", "b1"]);
  const twins = new Map([["y", message("y", null, "user", 1)], ["x", message("x", null, "user", 1)]]);
  assert.deepEqual(ids(versions(twins, twins.get("y"))), ["x", "y"]);
});

test("the newest leaf, from the top and from a message", () => {
  assert.equal(newestLeaf(TREE, null), "c1");
  assert.equal(newestLeaf(TREE, "q1"), "a2");
  assert.equal(newestLeaf(TREE, "a1"), "q2");
  assert.equal(newestLeaf(TREE, "q2"), "q2");
});

test("a circle in an imported file ends", () => {
  const circle = new Map([["x", message("x", "y", "user", 1)], ["y", message("y", "x", "assistant", 2)]]);
  assert.deepEqual(ids(pathTo(circle, "x")), ["y", "x"]);
  assert.equal(newestLeaf(circle, "x"), "x");
});

test("the model is sent the path from where it starts, without answers that never came", () => {
  const path = [message("1", null, "user", 1), message("2", "1", "assistant", 2, " \n"), message("3", "2", "user", 3)];
  const asked = [{ role: "user", content: "1" }, { role: "user", content: "3" }];
  assert.deepEqual(toSend(path, null, ""), asked);
  assert.deepEqual(toSend(path, "gone", "be kind"), [{ role: "system", content: "be kind" }, ...asked]);
  assert.deepEqual(toSend(path, "3", ""), [asked[1]]);
  assert.deepEqual(toSend([message("4", null, "user", 1, "")], null, ""), [{ role: "user", content: "" }]);
});

test("dropping the beginning: the next question after enough characters, else the last one there is", () => {
  const path = ["user", "assistant", "user", "assistant", "user"].map((role, at) => message(`${at}`, null, role, at, "x".repeat(92)));
  assert.equal(size(path), 500);
  assert.equal(startAfterDropping(path, null, 150), "2");
  assert.equal(startAfterDropping(path, null, 200), "2");
  assert.equal(startAfterDropping(path, null, 201), "4");
  assert.equal(startAfterDropping(path, "2", 150), "4");
  assert.equal(startAfterDropping(path, null, 9000), "4");
  assert.equal(startAfterDropping(path, "4", 1), null);
});

test("messages of earlier versions: thinking and answer come apart", () => {
  const old = (content, thinks) => migrated({ role: "assistant", content, thinks, facts: { starts_in_thinking: thinks } });
  const now = (content, reasoning) => ({ role: "assistant", content, facts: {}, ...(reasoning && { reasoning }) });
  assert.deepEqual(old("<think>\nwhy\n</think>\n\nso", false), now("so", "why"));
  assert.deepEqual(old("why</think>so", true), now("so", "why"));
  assert.deepEqual(old("<think>\n\n</think>\n\nso", false), now("so", ""));
  assert.deepEqual(old("<think>never done", false), now("", "never done"));
  assert.deepEqual(old(" so </think> x", false), now(" so </think> x", ""));
  assert.deepEqual(migrated({ role: "user", content: "<think>a</think>b" }), { role: "user", content: "<think>a</think>b" });
});

test("places of a text are found once each; JSON and long braces are none", () => {
  assert.deepEqual(variables('{订单号} { name } {订单号} {"a": 1} {a:b} {x;y} {"b"} {}'), ["订单号", "name"]);
  assert.deepEqual(variables(`{${"x".repeat(40)}} {${"y".repeat(41)}}`), ["x".repeat(40)]);
});

test("a place without a value stays; a value is taken as it is", () => {
  assert.equal(fill("{a} { b } {c} {constructor}", { a: "$&{b}", b: "" }), "$&{b}  {c} {constructor}");
});
