// Written by `claude-peers setup`; changes are lost. The door of claude-peers in OpenCode.
//
// It shows the messages of other sessions in the running one. It listens on a Unix socket. A `claude-peers-mcp` connects and says
// which directory it serves. The plugin tells it which session is open there and whether it is idle, puts the messages into that
// session, and reports a message as shown once OpenCode hands it to the model. OpenCode makes one instance of the plugin for each
// directory; the instances of a process share the socket.

import { randomUUID } from "node:crypto";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";

/** The key of our parts' metadata: it finds a message again in what goes to the model. */
const MARK = "claude-peers";

// ---- One directory ----

/** The instances, by directory. */
const instances = new Map();

class Instance {
  constructor(client, directory) {
    this.client = client;
    this.directory = real(directory);
    /** The session of the user's last prompt, or null. */
    this.session = null;
    /** How that prompt was sent: its agent, model and variant. Ours go the same way. */
    this.manner = {};
    /** Sessions that are subagents', and those in which the model works. */
    this.subagents = new Set();
    this.working = new Set();
    /** Messages to put into the session, in order; only the first is on its way. */
    this.waiting = [];
    /** Messages that stand in a session and have not gone to the model yet, by their mark. */
    this.placed = new Map();
  }

  get status() {
    return { session: this.session, idle: !this.working.has(this.session) };
  }

  /** Runs `change` and tells the servers if the status is another one. */
  update(change) {
    const before = JSON.stringify(this.status);
    change();
    if (JSON.stringify(this.status) !== before) tell(this.directory);
  }

  show(server, { frame, session = this.session, text, title }) {
    if (session !== this.session) return server.say({ failed: frame, reason: "another session is open" });
    if (!this.session) return server.say({ failed: frame, reason: "no session is open before the user's first prompt" });
    this.waiting.push({ server, frame, text, title, session: this.session, mark: randomUUID() });
    if (this.waiting.length === 1) this.place();
  }

  /**
   * Puts the first message into its session: a line that only the user sees, and the text, which only the model sees. The next
   * one waits until this one stands there, since OpenCode accepts a prompt before it adds it.
   */
  async place() {
    const { session, title, text, mark } = this.waiting[0];
    const metadata = { [MARK]: mark };
    const parts = [
      { type: "text", text: title, ignored: true },
      { type: "text", text, synthetic: true, metadata },
    ];
    try {
      const answer = await this.client.session.promptAsync({ path: { id: session }, body: { ...this.manner, parts } });
      if (answer.error) this.refused(mark, answer.error);
    } catch (error) {
      this.refused(mark, error);
    }
  }

  refused(mark, error) {
    if (this.waiting[0]?.mark === mark) this.fail(this.waiting[0], `OpenCode refused it: ${words(error)}`);
  }

  /** OpenCode adds a message to a session. The user's tells which session is theirs; after ours, the next one follows. */
  async added({ sessionID, variant }, { message, parts }) {
    const mark = markOf(parts);
    if (mark) return this.stands(mark);
    if (await this.isSubagent(sessionID)) return;
    this.manner = { agent: message.agent, model: modelOf(message), variant };
    this.update(() => (this.session = sessionID));
  }

  stands(mark) {
    const [message] = this.waiting;
    if (message?.mark !== mark) return;
    this.placed.set(mark, message);
    this.leave(message);
  }

  /** OpenCode is about to send these messages to the model. */
  sent(messages) {
    if (this.placed.size === 0) return;
    for (const { parts } of messages) {
      const mark = markOf(parts);
      const message = this.placed.get(mark);
      if (!message) continue;
      this.placed.delete(mark);
      message.server.say({ shown: message.frame });
    }
  }

  fail(message, reason) {
    message.server.say({ failed: message.frame, reason });
    this.placed.delete(message.mark);
    this.leave(message);
  }

  /** Takes a message out of the queue. */
  leave(message) {
    const wasFirst = this.waiting[0] === message;
    this.waiting = this.waiting.filter((other) => other !== message);
    if (wasFirst && this.waiting.length > 0) this.place();
  }

  async isSubagent(session) {
    if (this.subagents.has(session)) return true;
    const { data } = await this.client.session.get({ path: { id: session } });
    return Boolean(data?.parentID);
  }

  event({ type, properties }) {
    if (type === "session.created" && properties.info.parentID) this.subagents.add(properties.info.id);
    if (type === "session.status") this.works(properties.sessionID, properties.status.type !== "idle");
    if (type === "session.idle") this.works(properties.sessionID, false);
    if (type === "session.error") this.erred(properties);
    if (type === "session.deleted") this.deleted(properties.info.id);
  }

  /** An error of the session refuses the message that is on its way there. An interrupted turn is no such error. */
  erred({ sessionID, error }) {
    const [message] = this.waiting;
    if (message?.session === sessionID && error?.name !== "MessageAbortedError") this.refused(message.mark, error);
  }

  works(session, does) {
    this.update(() => (does ? this.working.add(session) : this.working.delete(session)));
  }

  deleted(session) {
    this.subagents.delete(session);
    const lost = [...this.waiting, ...this.placed.values()].filter((message) => message.session === session);
    for (const message of lost) this.fail(message, "its session was deleted");
    if (session === this.session) this.update(() => (this.session = null));
  }

  end() {
    for (const message of [...this.waiting, ...this.placed.values()]) {
      message.server.say({ failed: message.frame, reason: "OpenCode closed the directory" });
    }
    if (instances.get(this.directory) !== this) return;
    instances.delete(this.directory);
    tell(this.directory);
    if (instances.size === 0) close();
  }
}

function markOf(parts) {
  return parts.map((part) => part.metadata?.[MARK]).find(Boolean);
}

function modelOf({ model }) {
  return model && { providerID: model.providerID, modelID: model.modelID };
}

// ---- The servers of all directories ----

const servers = new Set();

/** A server says something. */
function heard(server, { open, show }) {
  if (open) {
    server.directory = real(open.cwd);
    servers.add(server);
    tell(server.directory);
  }
  if (show) showIn(instances.get(server.directory), server, show);
}

function showIn(instance, server, message) {
  if (instance) return instance.show(server, message);
  server.say({ failed: message.frame, reason: "OpenCode has not opened this directory" });
}

/** Tells a directory's servers how its session stands. */
function tell(directory) {
  const status = instances.get(directory)?.status ?? { session: null, idle: true };
  for (const server of servers) if (server.directory === directory) server.say(status);
}

/** A directory's path without symbolic links: a process knows its own directory so. */
function real(directory) {
  try {
    return fs.realpathSync(directory);
  } catch {
    return directory;
  }
}

// @DOOR@

// ---- What OpenCode calls ----

/** Writes into OpenCode's log; nothing is ever shown on the screen. */
let log = () => {};

/** Ends the listening; null while nothing listens. */
let shut = null;

/** The first directory opens the door, the last one closes it: OpenCode closes its directories before it ends. */
function open(client) {
  log = (error) => report(client, `${MARK}: ${words(error)}`);
  try {
    shut ??= listen(process.pid);
  } catch (error) {
    log(error);
  }
}

async function report(client, message) {
  try {
    await client.app.log({ body: { service: MARK, level: "error", message } });
  } catch {
    // OpenCode is ending.
  }
}

function close() {
  shut?.();
  shut = null;
}

/** A hook that neither delays nor stops a prompt of the user. */
function aside(run) {
  const hook = guarded((...given) => Promise.resolve(run(...given)).catch(log));
  return async (...given) => void hook(...given);
}

export const ClaudePeers = async ({ client, directory }) => {
  open(client);
  const instance = new Instance(client, directory);
  instances.set(instance.directory, instance);
  tell(instance.directory);
  return {
    event: aside(({ event }) => instance.event(event)),
    "chat.message": aside((input, output) => instance.added(input, output)),
    "experimental.chat.messages.transform": aside((_, { messages }) => instance.sent(messages)),
    dispose: aside(() => instance.end()),
  };
};
