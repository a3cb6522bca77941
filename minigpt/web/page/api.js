// Requests to the server this page is from, and to no other. What goes wrong is a Problem with one sentence.

import { word } from "./language.js";
import { askForToken, token } from "./token.js";

export class Problem extends Error {
  /** `gone`: there is no server any more; trying again may help. */
  constructor(message, { status = 0, gone = false } = {}) {
    super(message);
    Object.assign(this, { status, gone });
  }
}

export const get = async (path) => (await request(path)).json();
export const post = async (path, body, signal) => (await request(path, body, signal)).json();

/** The chunks of a stream of server-sent events, until it is done. */
export async function* stream(path, body, signal) {
  const answer = await request(path, { ...body, stream: true }, signal);
  for await (const data of events(answer.body.getReader())) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Problem(chunk.error.message);
    yield chunk;
  }
  throw gone();
}

async function request(path, body, signal) {
  for (;;) {
    const answer = await send(path, body, signal);
    if (answer.ok) return answer;
    const sentence = await sentenceOf(answer);
    if (answer.status !== 401 || !(await askForToken())) throw new Problem(sentence, { status: answer.status });
  }
}

async function send(path, body, signal) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  const options = { signal, headers };
  if (body !== undefined) {
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
    headers["Content-Type"] = "application/json";
  }
  try {
    return await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : gone();
  }
}

async function sentenceOf(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return word("refused", { status: answer.status });
  }
}

async function* events(reader) {
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await read(reader);
      if (done) return;
      const parts = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = parts.pop();
      for (const part of parts) if (part.startsWith("data: ")) yield part.slice(6);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    throw error.name === "AbortError" ? error : gone();
  }
}

const gone = () => new Problem(word("gone"), { gone: true });
