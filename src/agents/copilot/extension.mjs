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

// ---- The door: the same in all plugins ----

const LONGEST_LINE = 64 * 1024;
/** The longest path of a Unix socket on every system. */
const LONGEST_PATH = 103;

/** The folder of the broker's socket. */
function folder() {
  const { CLAUDE_PEERS_SOCKET: socket, XDG_RUNTIME_DIR: runtime } = process.env;
  if (socket) return path.dirname(socket);
  const login = [runtime, `/run/user/${process.getuid()}`].find(isOurs);
  return login ? path.join(login, "claude-peers") : path.join(os.homedir(), ".claude-peers");
}

function isOurs(directory) {
  const found = directory && path.isAbsolute(directory) && fs.statSync(directory, { throwIfNoEntry: false });
  return Boolean(found) && found.isDirectory() && found.uid === process.getuid();
}

/** Listens for the servers of the agent process `pid`. Returns what ends it; a socket that has replaced ours since stays. */
function listen(pid) {
  const file = path.join(folder(), "doors", `${pid}.sock`);
  const fresh = `${file}.${process.pid}`;
  fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
  fs.chmodSync(path.dirname(file), 0o700);
  if (Buffer.byteLength(fresh) > LONGEST_PATH) throw new Error(`${fresh} is too long for a socket`);
  fs.rmSync(fresh, { force: true });
  let own = null;
  const door = net.createServer(converse);
  door.on("error", log);
  door.listen(fresh, guarded(() => (own = publish(fresh, file))));
  door.unref();
  return () => {
    door.close();
    for (const server of servers) server.end();
    if (own !== null && inode(file) === own) fs.rmSync(file);
  };
}

/** Gives the socket its name once it is private, in the place of a left-over one. */
function publish(fresh, file) {
  fs.chmodSync(fresh, 0o600);
  fs.renameSync(fresh, file);
  return inode(file);
}

function inode(file) {
  return fs.statSync(file, { throwIfNoEntry: false })?.ino;
}

/** Reads a server's lines. One that cannot be parsed or is too long ends the connection. */
function converse(socket) {
  const say = (line) => socket.writable && socket.write(`${JSON.stringify(line)}\n`);
  const server = { say, end: () => socket.end() };
  let rest = "";
  socket.unref();
  socket.setEncoding("utf8");
  socket.on("error", () => socket.destroy());
  socket.on("close", () => servers.delete(server));
  socket.on("data", (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    try {
      for (const line of lines) heard(server, JSON.parse(short(line)) ?? {});
      short(rest);
    } catch (error) {
      log(error);
      socket.destroy();
    }
  });
}

function short(line) {
  if (Buffer.byteLength(line) > LONGEST_LINE) throw new Error("a line is too long");
  return line;
}

/** The function without its errors: none of ours may disturb the agent. */
function guarded(run) {
  return (...given) => {
    try {
      return run(...given);
    } catch (error) {
      log(error);
    }
  };
}

function words(error) {
  return String(error?.data?.message ?? error?.message ?? JSON.stringify(error)).slice(0, 200);
}

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
