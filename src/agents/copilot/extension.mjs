// Written by `claude-peers setup`; changes are lost. The door of claude-peers in Copilot CLI.
//
// It shows the messages of other sessions in the running one. It listens on a Unix socket. The session's `claude-peers-mcp`
// connects. The extension tells it which session is open and whether it is idle, puts the messages into the session, and reports
// a message as shown once Copilot takes it into a turn. Copilot runs the extension as a child process, a new one for each session.
// Standard output belongs to Copilot: the extension writes nothing there.

import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { joinSession } from "@github/copilot-sdk/extension";

/** Whom Copilot takes for the sender. Without it, a message would be the user's. */
const SOURCE = "agent-claude-peers";

// ---- The session ----

let session = null;
let isIdle = true;

/** Messages that Copilot has accepted and that stand in no turn yet, by its id. */
const accepted = new Map();
/** The ids of ours that came into a turn before `send` had told their id. */
const early = new Set();
/** Ends when the messages so far are accepted: they keep their order. */
let queue = Promise.resolve();

function show(server, message) {
  const failed = (error) => server.say({ failed: message.frame, reason: words(error) });
  queue = queue.then(() => send(server, message)).catch(failed);
}

/** While the agent works, the text goes beside its next tool result; else it begins a turn. The title shows that it waits. */
async function send(server, { frame, text, title }) {
  if (!session) throw new Error("no session is open");
  const id = await session.send({ prompt: text, displayPrompt: title, source: SOURCE, mode: isIdle ? "enqueue" : "immediate" });
  accepted.set(id, { server, frame, title });
  if (early.delete(id)) shown(id);
}

/** What Copilot tells of the session. A subagent's events carry its id. */
function event({ type, data, agentId }) {
  if (agentId) return;
  if (type === "user.message" && data.source === SOURCE) shown(data.messageId);
  if (type === "user.message" || type === "assistant.turn_start") update(false);
  if (type === "session.idle") update(true);
}

/** A message stands in a turn that goes to the model. Copilot shows the user only what is theirs, so we add a line for ours. */
function shown(id) {
  const message = accepted.get(id);
  if (!message) return early.add(id);
  accepted.delete(id);
  message.server.say({ shown: message.frame });
  session.log(message.title).catch(log);
}

function update(idle) {
  if (idle === isIdle) return;
  isIdle = idle;
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
  server.say({ session: session?.sessionId ?? null, idle: isIdle });
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
  const close = listen(PID);
  process.on("exit", close);
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, () => process.exit());
}

session = await joinSession({});
session.on(guarded(event));
guarded(open)();
