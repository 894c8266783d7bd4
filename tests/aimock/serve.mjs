// aimock on a free port, as a model that labels: every request that offers a function gets a call of it. A few records
// go wrong at their first call, each in its own way. Prints {"url": ...}; ends with its stdin.
import { LLMock } from "@copilotkit/aimock";

const FIRST_CALL = {
  r0010: limited,
  r0011: limited,
  r0012: limited,
  r0020: () => ({ error: { message: "busy", type: "server_error" }, status: 500 }),
  r0025: (tool) => call(tool, { label: "none of these" }),
  r0030: (tool) => ({ toolCalls: [{ name: tool.name, arguments: '{"label": "c0' }] }),
  r0035: () => ({ content: "I would rather talk about it." }),
};

const asked = new Map();

function limited() {
  return { error: { message: "slow down", type: "requests", code: "rate_limit_exceeded" }, status: 429, retryAfter: 1 };
}

function call(tool, label) {
  return { toolCalls: [{ name: tool.name, arguments: JSON.stringify(label) }] };
}

function answer(request) {
  const tool = request.tools[0].function;
  const [key] = request.messages.find((message) => message.role === "user").content.split(" ");
  asked.set(key, (asked.get(key) ?? 0) + 1);
  if (asked.get(key) === 1 && FIRST_CALL[key]) return FIRST_CALL[key](tool);
  const values = tool.parameters.properties.label.enum;
  return call(tool, { label: values[Number(key.slice(1)) % values.length] });
}

const mock = new LLMock({ port: 0, logLevel: "silent" });
mock.on({ predicate: (request) => Boolean(request.tools?.length) }, answer);
await mock.start();
process.stdout.write(`${JSON.stringify({ url: mock.url })}\n`);
process.stdin.resume();
process.stdin.on("end", () => mock.stop().then(() => process.exit(0)));
