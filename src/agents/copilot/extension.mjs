// Written by `claude-peers setup`; changes are lost. The door of claude-peers in Copilot CLI.
//
// It shows the messages of other sessions in the running one. It listens on a Unix socket. The session's `claude-peers-mcp`
// connects. The extension tells it which session is open and whether it is idle, puts the messages into the session, and
// reports a message as shown once Copilot takes it into a turn. Copilot runs the extension as a child process, a new one for
// each session. Standard output belongs to Copilot: the extension writes nothing there.

import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { joinSession } from "@github/copilot-sdk/extension";

/** Whom Copilot takes for the sender. Without it, a message would be the user's. */
const SOURCE = "agent-claude-peers";

/** How long a message may wait for its turn while nothing else happens: in ms. */
const PATIENCE = 60_000;

// ---- The session ----

let session = null;
/** What keeps the session from being idle: "turn", "compaction". */
const busy = new Set();

/** Messages to put into the session, in order; only the first is on its way, since Copilot may take a later one before it. */
let waiting = [];
/** The ids of ours that came into a turn before `send` had told their id. */
const early = new Set();
let patience = null;

function show(server, { frame, text, title }) {
  waiting.push({ server, frame, text, title, id: null });
  if (waiting.length === 1) send(waiting[0]);
}

/** The text goes beside the next tool result, or begins a turn. The title is what the user sees while it waits. */
async function send(message) {
  const { text, title } = message;
  try {
    message.id = await session.send({ prompt: text, displayPrompt: title, source: SOURCE, mode: "immediate" });
    early.delete(message.id) ? shown(message.id) : wait();
  } catch (error) {
    fail(message, words(error));
  }
}

/** What Copilot tells of the session. A subagent's events carry its id. */
function event({ type, data, agentId }) {
  if (agentId) return;
  if (type === "user.message" && data.source === SOURCE) shown(data.messageId);
  if (type === "user.message" || type === "assistant.turn_start") update(() => busy.add("turn"));
  if (type === "session.idle") update(() => busy.delete("turn"));
  if (type === "session.compaction_start") update(() => busy.add("compaction"));
  if (type === "session.compaction_complete") update(() => busy.delete("compaction"));
}

/** A message stands in a turn that goes to the model. Copilot shows the user only what is theirs, so we add a line for ours. */
function shown(id) {
  const [message] = waiting;
  if (message?.id !== id) return early.add(id);
  message.server.say({ shown: message.frame });
  session.log(message.title).catch(log);
  leave(message);
}

function fail(message, reason) {
  message.server.say({ failed: message.frame, reason });
  leave(message);
}

/** Takes a message out of the queue. */
function leave(message) {
  waiting = waiting.filter((other) => other !== message);
  if (waiting.length > 0) send(waiting[0]);
}

/** A message that is accepted begins a turn soon when the session is idle. One that does not was dropped. */
function wait() {
  clearTimeout(patience);
  if (busy.size > 0 || !waiting[0]?.id) return;
  const [message] = waiting;
  patience = setTimeout(() => waiting[0] === message && fail(message, "Copilot has dropped it"), PATIENCE).unref();
}

/** Copilot ends us, since the session is closed or cleared. */
function abandon() {
  for (const { server, frame } of waiting) server.say({ failed: frame, reason: "the session was closed" });
}

function update(change) {
  const before = busy.size;
  change();
  wait();
  if ((before === 0) === (busy.size === 0)) return;
  for (const server of servers) tell(server);
}

// ---- The servers ----

const servers = new Set();

/** A server says something. */
function heard(server, { open, show: message }) {
  if (open) {
    servers.add(server);
    tell(server);
  }
  if (message) show(server, message);
}

function tell(server) {
  server.say({ session: session?.sessionId ?? null, idle: busy.size === 0 });
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

// ---- What Copilot runs ----

/** The agent's process: our parent. */
const PID = Number(process.env.COPILOT_EXTENSION_PARENT_PID);

/** The session opens its door, and closes it when Copilot ends us. */
function open() {
  const close = guarded(listen)(PID);
  process.on("exit", () => {
    abandon();
    close?.();
  });
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, () => process.exit());
}

session = await joinSession({});
session.on(guarded(event));
open();
