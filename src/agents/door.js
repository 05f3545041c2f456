// ---- The door ----

const LONGEST_LINE = 8 * 1024 * 1024;
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
