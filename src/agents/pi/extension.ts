// Written by `claude-peers setup`; changes are lost. The tools of claude-peers in Pi, and its door.
//
// Pi speaks no MCP, so this extension starts `claude-peers-mcp` for each session and gives its tools to the model. It also
// listens on a Unix socket. That server connects, learns whether the session is idle, and hands over the messages of other
// sessions. The extension puts them into the session, and reports a message as shown once Pi hands it to the model.

import { VERSION } from "@earendil-works/pi-coding-agent";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";

/** The path of `claude-peers-mcp`. */
const SERVER = "@SERVER@";
const PROTOCOL = "2025-11-25";
/** The kind of our messages in a session. */
const KIND = "claude-peers";

/** How long Pi waits for the server when a session begins, and the pauses before a server that has ended starts again: in ms. */
const PATIENCE = 5_000;
const FIRST_PAUSE = 1_000;
const LONGEST_PAUSE = 60_000;
/** Pi says that a turn is over a moment before it takes another: in ms. */
const MOMENT = 20;
/** Pi does not say that a compaction has failed, so one counts as over after this time: in ms. */
const LONGEST_REWRITING = 300_000;

// ---- The MCP server ----

/** The server of one session: a child process, again and again, until the session ends. */
class Server {
  /** `offer` gets the tools whenever the server has started. */
  constructor(directory, session, offer) {
    this.directory = directory;
    this.session = session;
    this.offer = offer;
    this.instructions = "";
    this.pause = FIRST_PAUSE;
    this.ended = false;
    this.start();
  }

  /** `ready` ends when the tools are offered, or with the error that prevents it. */
  start() {
    const env = { ...process.env, CLAUDE_PEERS_PI_SESSION: this.session };
    this.calls = new Map();
    this.last = 0;
    const child = spawn(SERVER, [], { cwd: this.directory, env, stdio: ["pipe", "pipe", "ignore"] });
    this.child = child;
    child.on("error", (error) => this.stopped(child, error));
    child.on("exit", () => this.stopped(child, new Error("claude-peers-mcp has ended; it starts again")));
    child.stdin.on("error", log);
    createInterface({ input: child.stdout }).on("line", guarded((line) => this.heard(JSON.parse(line))));
    this.ready = this.shake();
    this.ready.catch(log);
  }

  async shake() {
    const { instructions } = await this.request("initialize", {
      protocolVersion: PROTOCOL,
      capabilities: {},
      clientInfo: { name: "pi", version: VERSION },
    });
    this.send({ method: "notifications/initialized" });
    this.instructions = instructions ?? "";
    this.offer((await this.request("tools/list", {})).tools);
    this.pause = FIRST_PAUSE;
  }

  /** Whatever was asked fails, and the server starts again after a pause that grows while it fails. */
  stopped(child, error) {
    if (this.child !== child) return;
    this.child = null;
    for (const call of this.calls.values()) call.fail(error);
    if (this.ended) return;
    later(this.pause, () => this.ended || this.start());
    this.pause = Math.min(2 * this.pause, LONGEST_PAUSE);
  }

  /** The server leaves when its input ends. */
  end() {
    this.ended = true;
    this.child?.stdin.end();
  }

  send(message) {
    const input = this.child?.stdin;
    if (input?.writable) input.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
  }

  request(method, params, progressed = () => {}) {
    const id = ++this.last;
    return new Promise((answer, fail) => {
      if (!this.child) return fail(new Error("claude-peers-mcp does not run; it starts again"));
      this.calls.set(id, { answer, fail, progressed });
      this.send({ id, method, params });
    });
  }

  heard({ id, method, params, result, error }) {
    if (method === "notifications/progress") return this.calls.get(params.progressToken)?.progressed(params);
    if (method) return id !== undefined && this.asked(id, method);
    const call = this.calls.get(id);
    this.calls.delete(id);
    error ? call?.fail(new Error(error.message)) : call?.answer(result);
  }

  /** The server asks us. All that it may ask is whether we are there. */
  asked(id, method) {
    this.send(method === "ping" ? { id, result: {} } : { id, error: { code: -32601, message: "no such method" } });
  }

  /** Calls a tool. The server hears of it when the user interrupts the call. */
  async call(name, given, signal, progressed) {
    await this.ready;
    signal?.throwIfAborted();
    const id = this.last + 1;
    const params = { requestId: id, reason: "the user has interrupted it" };
    const cancel = () => this.send({ method: "notifications/cancelled", params });
    const call = this.request("tools/call", { name, arguments: given, _meta: { progressToken: id } }, progressed);
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      return await Promise.race([call, interrupted(signal)]);
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }
}

function interrupted(signal) {
  return new Promise((_, fail) => signal?.addEventListener("abort", () => fail(new Error("interrupted")), { once: true }));
}

/** A tool of the server as a tool of Pi. */
function toolOf({ name, title, description, inputSchema }, server) {
  return {
    name,
    label: title ?? name,
    description,
    parameters: inputSchema,
    async execute(_id, given, signal, update) {
      const progressed = ({ progress, message }) => update?.(shows([text(message ?? `waiting for ${progress} s`)]));
      const { content, isError } = await server.call(name, given, signal, progressed);
      const parts = content.filter(({ type }) => type === "text");
      if (isError) throw new Error(parts.map((part) => part.text).join("\n"));
      return shows(parts);
    },
  };
}

/** Runs something after so many ms, unless Pi ends before. */
function later(ms, run) {
  return setTimeout(guarded(run), ms).unref();
}

function shows(content) {
  return { content, details: {} };
}

function text(words) {
  return { type: "text", text: words };
}

// ---- The session ----

class Session {
  constructor(pi, context) {
    this.pi = pi;
    this.context = context;
    this.id = context.sessionManager.getSessionId();
    this.idle = context.isIdle();
    /** Messages that Pi has got and not handed to the model yet, by their mark. */
    this.sent = new Map();
    this.rewriting = false;
    /** Pi closes no session when it loses its terminal. */
    this.ending = () => this.end();
    this.server = new Server(context.cwd, this.id, (tools) => this.offer(tools));
    this.close = guarded(listen)(PID);
    process.once("exit", this.ending);
  }

  /** Waits for the server's tools, but not so long that a server that hangs keeps the user from Pi. Its errors are in the log. */
  async open() {
    const patience = new Promise((done) => void later(PATIENCE, done));
    await Promise.race([this.server.ready, patience]).catch(() => {});
  }

  offer(tools) {
    for (const tool of tools) this.pi.registerTool(toolOf(tool, this.server));
  }

  end() {
    process.off("exit", this.ending);
    this.server.end();
    for (const { server, frame } of this.sent.values()) server.say({ failed: frame, reason: "the session was closed" });
    this.close?.();
  }

  show(server, { frame, text }) {
    const mark = randomUUID();
    this.sent.set(mark, { server, frame, text });
    if (!this.rewriting) this.hand(mark);
  }

  /** Idle: a turn begins. Busy: Pi puts the text beside the next tool result, or begins a turn after this one. */
  hand(mark) {
    const { server, frame, text } = this.sent.get(mark);
    try {
      const message = { customType: KIND, content: text, display: true, details: { mark } };
      this.pi.sendMessage(message, { triggerTurn: true, deliverAs: "steer" });
    } catch (error) {
      this.sent.delete(mark);
      server.say({ failed: frame, reason: `Pi refused it: ${words(error)}` });
    }
  }

  /** Pi is about to send these messages to the model. One that was handed over twice goes once. */
  goes({ messages }) {
    const marks = new Set();
    const isFirst = (mark) => !marks.has(mark) && marks.add(mark);
    const once = messages.filter((message) => message.customType !== KIND || isFirst(message.details?.mark));
    for (const mark of marks) this.shown(mark);
    return once.length < messages.length ? { messages: once } : undefined;
  }

  shown(mark) {
    const message = this.sent.get(mark);
    this.sent.delete(mark);
    message?.server.say({ shown: message.frame });
  }

  begins() {
    this.rewriting = false;
    this.update(false);
  }

  /** The agent is done. After an error Pi tries again, and has kept what waits. */
  ends({ messages }) {
    this.update(true);
    if (messages.at(-1)?.stopReason !== "error") this.settleSoon();
  }

  /** Pi begins to rewrite the conversation, as in a compaction: what came in between would be lost. */
  rewrites({ signal }) {
    this.rewriting = true;
    this.update(false);
    signal?.addEventListener("abort", () => this.rewritten(), { once: true });
    clearTimeout(this.limit);
    this.limit = later(LONGEST_REWRITING, () => this.rewritten());
  }

  rewritten() {
    clearTimeout(this.limit);
    later(MOMENT, () => {
      this.rewriting = false;
      this.update(this.context.isIdle());
      this.settle();
    });
  }

  settleSoon() {
    later(MOMENT, () => this.settle());
  }

  /** Hands over once more what the model did not get: Pi drops what waits if the user interrupts the turn. */
  settle() {
    if (this.server.ended || !this.idle || this.rewriting) return;
    if (!this.context.isIdle()) return this.settleSoon();
    for (const mark of this.sent.keys()) this.hand(mark);
  }

  update(idle) {
    if (idle === this.idle) return;
    this.idle = idle;
    for (const server of servers) tell(server);
  }
}

let session = null;

// ---- The servers at the door ----

const servers = new Set();

/** A server says something. */
function heard(server, { open, show }) {
  if (open) {
    servers.add(server);
    tell(server);
  }
  if (show) session ? session.show(server, show) : server.say({ failed: show.frame, reason: "no session is open" });
}

function tell(server) {
  server.say({ session: session?.id ?? null, idle: session?.idle ?? true });
}

// @DOOR@

// ---- The log ----

const LONGEST_LOG = 64 * 1024;

/** Writes an error into a file beside the socket. Nothing is ever shown on the screen. */
function log(error) {
  try {
    const file = path.join(folder(), "doors", `${PID}.log`);
    const line = `${new Date().toISOString()} ${words(error)}\n`;
    const isFull = (fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0) + line.length > LONGEST_LOG;
    fs.writeFileSync(file, line, { flag: isFull ? "w" : "a", mode: 0o600 });
  } catch {
    // There is no place to write to.
  }
}

// ---- What Pi calls ----

const PID = process.pid;

export default function (pi) {
  pi.on("session_start", async (_event, context) => {
    session = new Session(pi, context);
    await session.open();
  });
  pi.on("session_shutdown", guarded(() => {
    session?.end();
    session = null;
  }));
  pi.on("before_agent_start", guarded(({ systemPrompt }) => {
    session?.begins();
    const instructions = session?.server.instructions;
    return instructions ? { systemPrompt: `${systemPrompt}\n\n${instructions}` } : undefined;
  }));
  pi.on("agent_start", guarded(() => session?.begins()));
  pi.on("context", guarded((event) => session?.goes(event)));
  pi.on("agent_end", guarded((event) => session?.ends(event)));
  pi.on("session_before_compact", guarded((event) => session?.rewrites(event)));
  pi.on("session_compact", guarded(() => session?.rewritten()));
  pi.on("session_before_tree", guarded((event) => session?.rewrites(event)));
  pi.on("session_tree", guarded(() => session?.rewritten()));
}
