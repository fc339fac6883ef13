// Vercel's AI SDK over chat completions: a tool that must be called, whole and streamed, and an object.
// Arguments: the URL of /v1 and the model's name. Prints one line of JSON.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, streamText, tool } from "ai";
import { z } from "zod";

const [baseURL, name] = process.argv.slice(2);
const model = createOpenAICompatible({
  name: "youtu",
  baseURL,
  apiKey: "none",
  supportsStructuredOutputs: true,
})(name);
const tools = {
  weather: tool({
    description: "Tell the weather of a city",
    inputSchema: z.object({ city: z.string() }),
  }),
};
const asked = { model, tools, toolChoice: "required", prompt: "What is the weather in Paris?", temperature: 0 };

const whole = await generateText(asked);
const stream = streamText(asked);
await stream.consumeStream();
const typed = await generateText({
  model,
  prompt: "Is water wet?",
  temperature: 0,
  output: Output.object({ schema: z.object({ yes: z.boolean() }) }),
});
console.log(
  JSON.stringify({
    whole: whole.toolCalls.map((call) => [call.toolName, Object.keys(call.input)]),
    streamed: (await stream.toolCalls).map((call) => [call.toolName, Object.keys(call.input)]),
    reason: whole.finishReason,
    object: Object.keys(typed.output),
  }),
);
