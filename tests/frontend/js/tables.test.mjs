import assert from "node:assert/strict";
import test from "node:test";

import { NotCsv, asText, guess, parse, questions, restored, write } from "../../../frontend/static/bench_csv.js";

// What a spreadsheet would run, and what only looks like it.
const FORMULAS = ["=1+1", "+86 138", "-5 度", "@someone", "\tx", "\r=x", " =spaced", "'=quoted", "''=twice", "＝全角", "－5", "＋1", "＠x"];
const TEXTS = ["plain", "'plain", "a-b", "1=1", "", "she said \"no\"", '"', "a,b;c", "two\nlines", "two\r\nlines", " spaces ", "多少钱？", "😀"];

const read = (text) => questions(text, guess(text));

test("records come back as they were written, whatever is in them", () => {
  const records = [["问题", "a"], ...[...FORMULAS, ...TEXTS].map((text) => [text, "end"])];
  const text = write(records);
  assert.equal(text[0], "\ufeff");
  assert.deepEqual(restored(parse(text.slice(1))), records);
});

test("no cell of a written table begins as a formula does", () => {
  const cells = parse(write(FORMULAS.map((text) => [text, "end"])).slice(1)).map(([cell]) => cell);
  assert.deepEqual(cells, FORMULAS.map((text) => `'${text}`));
  assert.deepEqual(parse(write(TEXTS.map((text) => [text, "end"])).slice(1)).map(([cell]) => cell), TEXTS);
});

test("numbers are written as numbers, also below zero; what is not there is empty", () => {
  assert.equal(write([[-1, 2.5, null, undefined]]), "\ufeff-1,2.5,,\r\n");
});

test("a text is quoted where it holds what a reader would take for the table's own, or spaces at an end", () => {
  assert.equal(write([["a b", " a", "a ", 'a"', "a,", "a\n"]]), '\ufeffa b," a","a ","a""","a,","a\n"\r\n');
});

test("the separator is the most frequent one of the first record, outside quotation marks", () => {
  assert.deepEqual(parse('"a,b,c";d\n1;2'), [["a,b,c", "d"], ["1", "2"]]);
  assert.deepEqual(parse("a\tb,c\td\n"), [["a", "b,c", "d"]]);
  assert.deepEqual(parse("a,b\r1,2\r\n\r\n3,4"), [["a", "b"], ["1", "2"], ["3", "4"]]);
});

test("a quotation mark inside a field is a character; one that stays open is refused with its line", () => {
  assert.deepEqual(parse('5" pipe,x\n"a ""b""",y'), [['5" pipe', "x"], ['a "b"', "y"]]);
  for (const text of ['a,b\n1,2\n"open,3\nmore\n', 'a,b\r\n1,2\r\n"open,3']) {
    assert.throws(() => parse(text), (error) => error instanceof NotCsv && error.line === 3);
  }
});

test("Chinese headers are found: question, id, category; the other columns become fields", () => {
  const text = "工单号,分类,客户问题,订单号,备注\n7,退货,怎么退货？,A-1,\n8,,多少钱？,A-2,急\n9,退货,,A-3,\n";
  assert.deepEqual(guess(text), { kind: "table", header: true, column: 2, idColumn: 0 });
  assert.deepEqual(read(text), [
    { id: "7", question: "怎么退货？", category: "退货", fields: { 工单号: "7", 订单号: "A-1" } },
    { id: "8", question: "多少钱？", category: "", fields: { 工单号: "8", 订单号: "A-2", 备注: "急" } },
  ]);
});

test("a better name of a column goes before a worse one, wherever it stands", () => {
  assert.equal(guess("title,content,question\na,b,c").column, 2);
  assert.equal(guess("标题,内容\na,b").column, 1);
  assert.equal(guess("No.,Subject\n1,Where?").column, 1);
});

test("commas of sentences do not make a table; keys beside every question do", () => {
  assert.deepEqual(read("Hello, where is it?\nWell, when?\n"), [
    { id: "", question: "Hello, where is it?" },
    { id: "", question: "Well, when?" },
  ]);
  assert.deepEqual(read("A-1,Where is it?\nA-2,When?\n").map(({ question }) => question), ["Where is it?", "When?"]);
});

test("a question with a separator that nobody quoted stays whole", () => {
  const [row] = read("id,question,tag\n1,Well, where, is it?,lost\n");
  assert.deepEqual(row, { id: "1", question: "Well, where, is it?", category: "lost" });
});

test("a list of somebody else keeps its apostrophes; one of ours loses those that made it safe", () => {
  assert.equal(read("question,order\n'=1,x\n")[0].question, "'=1");
  const ours = "question,answer,good,edited,model_answer,finish_reason,tokens,seconds,error\n'=1,'+86,YES,yes,old,stop,12,1.5,\n";
  assert.deepEqual(read(ours), [
    { id: "", question: "=1", answer: "+86", good: true, original: "old", finish: "stop", tokens: 12, seconds: 1.5, error: "" },
  ]);
});

test("a row of ours without an answer is a question again; with an error it keeps the error", () => {
  const [asked, failed] = read("question,answer,error\na,,\nb,,too long\n");
  assert.deepEqual(asked, { id: "", question: "a" });
  assert.equal(failed.error, "too long");
});

test("lines of JSON: questions, prompts and conversations; a broken line is named", () => {
  const lines = [
    { id: 1, question: " a ", category: "c", fields: { n: 2, none: null } },
    { prompt: "b" },
    { messages: [{ role: "user", content: "first" }, { role: "assistant", content: "x" }, { role: "user", content: "last" }] },
    { question: 7 },
  ];
  const text = `\ufeff${lines.map((line) => JSON.stringify(line)).join("\r\n")}\r\n`;
  assert.equal(guess(text).kind, "jsonl");
  assert.deepEqual(read(text), [
    { id: "1", question: "a", category: "c", fields: { n: "2", none: "" } },
    { id: "", question: "b", category: "" },
    { id: "", question: "last", category: "" },
  ]);
  const broken = '{"question": "a"}\n\n{"question": \n';
  assert.throws(() => read(broken), (error) => error instanceof NotCsv && error.line === 3);
});

test("a workbook as text: formulas stay as they are, unless the workbook is one of ours", () => {
  assert.equal(read(asText([["question", "n"], ["=1+1", "a\nb"]]))[0].question, "=1+1");
  assert.equal(read(asText([["question", "answer"], ["=1+1", "'=2"]]))[0].question, "=1+1");
  assert.equal(read(asText([["question", "answer"], ["=1+1", "'=2"]]))[0].answer, "'=2");
});
