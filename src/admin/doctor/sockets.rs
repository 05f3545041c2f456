//! Both sockets: whether they can be reached, whether this user's broker answers, and otherwise who holds the port.

use super::{
    finding::{Finding, Fix, failed, ok, skipped, warning},
    scene::{Door, Scene},
    service,
};
use crate::{
    admin::manager::Manager,
    agents::files,
    client::{OUTSIDE, is_sandboxed},
    platform::{
        call::Call,
        kernel::{self, Socket},
        paths, process,
    },
    wire::{self, API_HEADER, BrokerStatus, Code, Hello, TOKEN_HEADER, text::printable_line},
};
use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    time::Duration,
};
use ureq::{Body, http::Response};

/// How long the program on the port, and `id`, may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

pub fn unix(scene: &Scene) -> Finding {
    match (&scene.socket, &scene.door) {
        (Err(_), _) | (_, Door::Unknown) => skipped("its path is not known: see settings"),
        (Ok(socket), Door::Broker(broker, _)) => open_to_others(socket)
            .unwrap_or_else(|| ok(format!("{}, served by the broker (pid {})", socket.display(), broker.pid))),
        (Ok(_), Door::Mute(error)) => failed(&error.message, mute_help(scene, error)),
        (Ok(socket), Door::Closed(error)) => closed(scene, socket, error),
    }
}

fn closed(scene: &Scene, socket: &Path, error: &io::Error) -> Finding {
    let place = socket.display();
    // If a socket's file is removed, its manager keeps listening but cannot be reached.
    let is_here = |listen: &str| Path::new(listen) == socket;
    let deaf = scene.units.as_ref().filter(|units| units.socket.is_active() && units.socket.listen().is_some_and(is_here));
    let again = deaf.map(|units| units.systemd.on("restart", [units.socket.name.as_str()]));
    let help =
        again.as_ref().map_or_else(|| start_help(scene), |again| format!("make the service manager create it again: `{again}`"));
    let start = service::start(scene).into_iter().chain(again.map(Fix::Run));
    match (error.kind(), fs::symlink_metadata(socket)) {
        (ErrorKind::NotFound, _) => {
            let why = if deaf.is_some() { "it was removed" } else { "no broker runs, and no service manager listens for it" };
            failed(format!("there is no {place}: {why}"), help).fixes(start)
        }
        (_, Ok(meta)) if !meta.file_type().is_socket() => {
            let help = format!("move it away (`mv {place} {place}.old`), then {help}");
            failed(format!("{place} is no socket, but another kind of file"), help)
        }
        (ErrorKind::ConnectionRefused, Ok(_)) => {
            let what = format!("{place} is stale: no process listens on it (a broker was killed)");
            let fixes = std::iter::once(Fix::RemoveSocket(socket.to_owned())).chain(start);
            failed(what, format!("remove it (`rm {place}`), then {help}")).fixes(fixes)
        }
        (ErrorKind::PermissionDenied, _) if is_sandboxed(error) => {
            failed(format!("a sandbox keeps this program from connecting to {place}: {error}"), OUTSIDE)
        }
        (ErrorKind::PermissionDenied, _) => failed(
            format!("you may not connect to {place}: it belongs to another user, or its permissions were changed"),
            "unset CLAUDE_PEERS_SOCKET, or make it yours again: the folder with mode 0700, the socket with 0600",
        ),
        _ => failed(format!("{place} cannot be connected to: {error}"), help),
    }
}

/// Help for a process that listens but does not answer as a broker does.
fn mute_help(scene: &Scene, error: &wire::Error) -> String {
    match (error.code, &scene.manager) {
        (Code::Unreachable, _) if scene.installed_units().is_some() => {
            "see the service above; `systemctl --user restart claude-peers` restarts a broker that hangs".to_owned()
        }
        (Code::Unreachable, Manager::Launchd(launchd)) => {
            format!(
                "the broker hangs or ends at once: end it with `{}`; the next connection starts it again",
                launchd.on(&["kill", "SIGKILL"])
            )
        }
        (Code::Unreachable, _) => "the broker hangs or ends at once: end it (`kill` its process) and start it again".to_owned(),
        _ => error.help.clone().unwrap_or_else(|| "look into the broker's log".to_owned()),
    }
}

fn start_help(scene: &Scene) -> String {
    let help = match (&scene.units, &scene.manager) {
        (Some(units), _) if units.installed() => {
            "make the service manager listen: `systemctl --user start claude-peers.socket claude-peers-tcp.socket`"
        }
        (Some(_), _) => "`claude-peers setup` makes it start on demand; or run `claude-peersd` in a terminal of its own",
        (None, Manager::None(_)) => "`claude-peers start` runs it in the background",
        (None, _) => "`claude-peers setup` makes launchd start it on demand",
    };
    help.to_owned()
}

/// The socket or its folder is open to other users. The broker still refuses them.
fn open_to_others(socket: &Path) -> Option<Finding> {
    let open = |path: &Path| fs::metadata(path).ok().map(|meta| meta.mode() & 0o7777).filter(|mode| mode & 0o077 != 0);
    let folder = socket.parent()?;
    // Only our own folder may be closed.
    let is_ours = folder.file_name().is_some_and(|name| name == "claude-peers" || name == ".claude-peers");
    let (path, mode, wanted) = match (open(folder), open(socket)) {
        (Some(mode), _) if is_ours => (folder, mode, 0o700),
        (Some(_), Some(mode)) => (socket, mode, 0o600),
        _ => return None,
    };
    let place = path.display();
    let what = format!("{place} is open to others (mode {mode:04o}); the broker refuses them, but they should not get that far");
    Some(warning(what, format!("chmod {wanted:04o} {place}")).fixes([Fix::Mode(path.to_owned(), wanted)]))
}

/// The TCP socket, which sessions of legacy clients use.
pub async fn tcp(scene: &Scene) -> Finding {
    let listener = scene.broker().and_then(|broker| broker.listeners.iter().find(|listener| listener.kind == "tcp"));
    let port = match listener {
        Some(listener) => listener.address.rsplit(':').next().and_then(|port| port.parse().ok()),
        None => scene.tcp_port(),
    };
    let port = match port {
        None => return skipped("the port is not known: see settings"),
        Some(0) => return skipped("CLAUDE_PEERS_PORT=0 means any free port, and no broker runs that could say which"),
        Some(port) => port,
    };
    match (scene.broker(), kernel::listening(port)) {
        (Some(broker), _) if listener.is_some_and(|listener| listener.listening) => served_by(scene, broker, port),
        (None, None) if scene.units.as_ref().is_some_and(|units| units.tcp.is_ruled_out()) => {
            skipped(format!("of a system user; a broker takes port {port} when it starts, if the port is free"))
        }
        (_, None) => unheld(scene, port),
        (_, Some(holder))
            if is_ours(&holder) && listener.is_none() && scene.units.as_ref().is_some_and(|u| u.tcp.is_active()) =>
        {
            skipped(format!("the service manager holds port {port} for the broker, which does not answer: see above"))
        }
        (_, Some(holder)) => held(port, &holder).await,
    }
}

fn is_ours(socket: &Socket) -> bool {
    socket.uid == rustix::process::getuid().as_raw()
}

/// The broker reports that it listens; checks that it is the one that answers there.
fn served_by(scene: &Scene, broker: &BrokerStatus, port: u16) -> Finding {
    let (address, pid) = (format!("127.0.0.1:{port}"), broker.pid);
    let token = scene.socket.as_ref().ok().and_then(|socket| files::read(&paths::token(socket)).ok()?);
    match ask(port, token.as_deref()).and_then(|mut answer| answer.body_mut().read_json::<Hello>().ok()) {
        Some(hello) if hello.pid == pid => ok(format!("{address}, served by the same broker")),
        Some(Hello { pid: other, .. }) => failed(
            format!("{address} is served by another broker (pid {other}) than the Unix socket (pid {pid})"),
            format!("end the one that you do not want: `kill {other}`"),
        ),
        None => failed(
            format!("the broker (pid {pid}) listens on {address}, but another program answers there, or none"),
            "find who listens on the port: `ss -ltnp`, on a Mac `lsof -nP -iTCP -sTCP:LISTEN`",
        ),
    }
}

fn unheld(scene: &Scene, port: u16) -> Finding {
    let listener = scene.broker().and_then(|broker| broker.listeners.iter().find(|listener| listener.kind == "tcp"));
    let problem = listener.and_then(|listener| listener.problem.clone());
    match problem {
        // The broker detected this when it started.
        Some(problem) if kernel::can_tell() => failed(
            format!("no program listens on port {port} now, but when the broker started: {problem}"),
            "the port is free again: `claude-peers stop`; the broker takes the port at its next start",
        ),
        Some(problem) => failed(problem, format!("find who listens: `lsof -nP -iTCP:{port} -sTCP:LISTEN`, and end that program")),
        None => failed(format!("no program listens on 127.0.0.1:{port}"), start_help(scene)).fixes(service::start(scene)),
    }
}

/// Another program holds the port.
async fn held(port: u16, holder: &Socket) -> Finding {
    let process = kernel::owner(holder.inode).map(|pid| {
        let command = process::command_line(pid).join(" ");
        let colon = if command.is_empty() { "" } else { ": " };
        format!(" (process {pid}{colon}{})", printable_line(&command))
    });
    let is_broker = ask(port, None).is_some_and(|answer| answer.headers().contains_key(API_HEADER));
    let user = user(holder.uid).await;
    let (who, end) = match (is_ours(holder), is_broker) {
        (true, is_broker) => (
            format!("another {} of yours", if is_broker { "claude-peers broker" } else { "program" }),
            "end it (`kill` and its number), then `claude-peers stop`: the broker takes the port at its next start",
        ),
        (false, true) => {
            (format!("the claude-peers broker of user {user}"), "one port cannot serve two users, and each needs a broker")
        }
        (false, false) => (format!("a program of user {user}"), "only they can end it"),
    };
    let next = port.checked_add(1).unwrap_or(paths::DEFAULT_PORT);
    // Two users of one machine are nothing wrong.
    let finding = if !is_ours(holder) && is_broker { warning } else { failed };
    finding(
        format!(
            "port {port} is held by {who}{}; legacy clients cannot reach your broker, all others can",
            process.unwrap_or_default()
        ),
        format!("{end}; or take another port for yours: `claude-peers setup --port {next}`"),
    )
}

async fn user(uid: u32) -> String {
    let named = Call::new("id", "id", ["-nu", &uid.to_string()], PATIENCE).run().await;
    named.map(|name| name.trim().to_owned()).unwrap_or_else(|_| format!("number {uid}"))
}

/// Asks the program on the port for its identity; none if it does not answer in HTTP.
fn ask(port: u16, token: Option<&str>) -> Option<Response<Body>> {
    // Bypasses any proxy, which would ask another machine.
    let config = ureq::config::Config::builder().timeout_global(Some(PATIENCE)).http_status_as_error(false);
    let agent = ureq::Agent::from(config.max_redirects(0).proxy(None).build());
    let mut request = agent.get(format!("http://127.0.0.1:{port}/v1/hello"));
    if let Some(token) = token {
        request = request.header(TOKEN_HEADER, token);
    }
    request.call().ok()
}
