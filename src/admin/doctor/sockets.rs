//! Both sockets: whether they are reachable, whether it is this user's broker that answers, and who holds the port otherwise.

use super::{
    Finding, failed,
    fix::Fix,
    ok, programs,
    scene::{Door, Scene},
    service, skipped, warning,
};
use crate::{
    admin::manager::Manager,
    platform::{kernel, paths, process},
    wire::{self, API_HEADER, BrokerStatus, Code, Hello, TOKEN_HEADER, text::printable_line},
};
use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    time::Duration,
};

/// How long whoever listens on the port may take to answer.
const GREETING_PATIENCE: Duration = Duration::from_secs(2);

pub fn unix(scene: &Scene) -> Finding {
    match (&scene.socket, &scene.door) {
        (Err(_), _) | (_, Door::Unknown) => skipped("its place is not known: see settings"),
        (Ok(socket), Door::Broker(broker, _)) => open_to_others(socket)
            .unwrap_or_else(|| ok(format!("{}, served by the broker (pid {})", socket.display(), broker.pid))),
        (Ok(_), Door::Mute(error)) => failed(&error.message, mute_help(scene, error)),
        (Ok(socket), Door::Closed(error)) => closed(scene, socket, error),
    }
}

fn closed(scene: &Scene, socket: &Path, error: &io::Error) -> Finding {
    let place = socket.display();
    let found = fs::symlink_metadata(socket);
    // A manager whose file was taken away goes on listening where nobody can connect.
    let listens = |listen: &str| Path::new(listen) == socket;
    let deaf = scene.units.as_ref().filter(|units| units.socket.is_active() && units.socket.listen().is_some_and(listens));
    let again = deaf.map(|units| units.systemd.on("restart", [units.socket.name.as_str()]));
    let help =
        again.as_ref().map_or_else(|| start_help(scene), |again| format!("have the service manager make it anew: `{again}`"));
    let start = service::start(scene).into_iter().chain(again.map(Fix::Run));
    match (error.kind(), found) {
        (ErrorKind::NotFound, _) => {
            let why =
                if deaf.is_some() { "somebody has removed it" } else { "no broker runs, and no service manager listens for it" };
            failed(format!("there is no {place}: {why}"), help).fixes(start)
        }
        (_, Ok(meta)) if !meta.file_type().is_socket() => {
            let help = format!("move it away (`mv {place} {place}.old`), then {help}");
            failed(format!("{place} is no socket, but another kind of file"), help)
        }
        (ErrorKind::ConnectionRefused, Ok(_)) => {
            let what = format!("{place} is stale: the file is there, but nobody listens on it (a broker was killed)");
            let fixes = std::iter::once(Fix::RemoveSocket(socket.to_owned())).chain(start);
            failed(what, format!("remove it (`rm {place}`), then {help}")).fixes(fixes)
        }
        (ErrorKind::PermissionDenied, _) => failed(
            format!("{place} may not be connected to by you: it belongs to another user, or its permissions were changed"),
            "unset CLAUDE_PEERS_SOCKET, or make it yours again: the folder with mode 0700, the socket with 0600",
        ),
        _ => failed(format!("{place} cannot be connected to: {error}"), help),
    }
}

/// Somebody listens, and does not answer as a broker does.
fn mute_help(scene: &Scene, error: &wire::Error) -> String {
    match (error.code, &scene.manager) {
        (Code::Unreachable, _) if scene.installed_units().is_some() => {
            "see what is said of the service; a broker that hangs is ended and started by `systemctl --user restart claude-peers`"
                .to_owned()
        }
        (Code::Unreachable, Manager::Launchd(launchd)) => {
            format!("the broker hangs or ends at once: end it with `{}`; the next connection starts it again", launchd.kill())
        }
        (Code::Unreachable, _) => "the broker hangs or ends at once: end it (`kill` its process) and start it again".to_owned(),
        _ => error.help.clone().unwrap_or_else(|| "look into the broker's log".to_owned()),
    }
}

fn start_help(scene: &Scene) -> String {
    let help = match &scene.units {
        Some(units) if units.installed() => {
            "have the service manager listen: `systemctl --user start claude-peers.socket claude-peers-tcp.socket`"
        }
        Some(_) => "`claude-peers setup` has it started whenever it is needed; or run `claude-peersd` in a terminal of its own",
        None if matches!(scene.manager, Manager::None(_)) => "run `claude-peersd` in a terminal of its own",
        None => "`claude-peers setup` has launchd start it whenever it is needed",
    };
    help.to_owned()
}

/// The socket or its folder lets others in. The broker refuses other users all the same.
fn open_to_others(socket: &Path) -> Option<Finding> {
    let open = |path: &Path| fs::metadata(path).ok().map(|meta| meta.mode() & 0o7777).filter(|mode| mode & 0o077 != 0);
    let folder = socket.parent()?;
    let (path, mode, wanted) = match (open(folder), open(socket)) {
        // A folder that is not ours alone (a temporary one) is its owner's to close.
        (Some(mode), _) if folder.file_name().is_some_and(|name| name == "claude-peers" || name == ".claude-peers") => {
            (folder, mode, 0o700)
        }
        (Some(_), Some(mode)) => (socket, mode, 0o600),
        _ => return None,
    };
    let place = path.display();
    let what = format!("{place} is open to others (mode {mode:04o}); the broker refuses them, but they should not get that far");
    Some(warning(what, format!("chmod {wanted:04o} {place}")).fixes([Fix::Mode(path.to_owned(), wanted)]))
}

/// The TCP socket, which sessions of the reference system use.
pub async fn tcp(scene: &Scene) -> Finding {
    let served =
        scene.broker().and_then(|broker| Some((broker, broker.listeners.iter().find(|listener| listener.kind == "tcp")?)));
    let port = match (served, scene.tcp_port()) {
        (Some((_, listener)), _) => listener.address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0),
        (None, Some(port)) => port,
        (None, None) => return skipped("the port is not known: see settings"),
    };
    if port == 0 {
        return skipped("CLAUDE_PEERS_PORT=0 means any free port, and no broker runs that could say which");
    }
    if let Some((broker, listener)) = served
        && listener.listening
    {
        return served_by(scene, broker, port);
    }
    let Some(holder) = kernel::listening(port) else {
        return unheld(scene, port);
    };
    let ours = rustix::process::getuid().as_raw() == holder.uid;
    if ours && served.is_none() && scene.units.as_ref().is_some_and(|units| units.tcp.is_active()) {
        return skipped(format!("the service manager holds port {port} for the broker, which does not answer: see above"));
    }
    let process = kernel::owner(holder.inode).map(|pid| {
        let command = process::command_line(pid).join(" ");
        let colon = if command.is_empty() { "" } else { ": " };
        format!(" (process {pid}{colon}{})", printable_line(&command))
    });
    let is_broker = greet(port, None).is_some_and(|greeting| greeting.is_broker);
    const END: &str =
        "end it (`kill` and its number), then `claude-peers stop`: the broker takes the port when it is started again";
    let user = programs::user(holder.uid).await;
    let (who, end) = match (ours, is_broker) {
        (true, true) => ("another claude-peers broker of yours".to_owned(), END),
        (true, false) => ("another program of yours".to_owned(), END),
        (false, true) => (
            format!("the claude-peers broker of user {user}"),
            "one port cannot serve two users, and each keeps to their own broker",
        ),
        (false, false) => (format!("a program of user {user}"), "only they can end it"),
    };
    let process = process.unwrap_or_default();
    let next = port.checked_add(1).unwrap_or(paths::DEFAULT_PORT);
    failed(
        format!(
            "port {port} is held by {who}{process}; sessions of the reference system cannot reach your broker, all others can"
        ),
        format!("{end}; or take another port for yours: `claude-peers setup --port {next}`"),
    )
}

/// The broker says that it listens: whether it is the one that answers there.
fn served_by(scene: &Scene, broker: &BrokerStatus, port: u16) -> Finding {
    let (address, pid) = (format!("127.0.0.1:{port}"), broker.pid);
    let token = scene.socket.as_ref().ok().and_then(|socket| fs::read_to_string(paths::token(socket)).ok());
    match greet(port, token.as_deref()).and_then(|greeting| greeting.hello) {
        Some(hello) if hello.pid == pid => ok(format!("{address}, served by the same broker")),
        Some(Hello { pid: other, .. }) => failed(
            format!("{address} is served by another broker (pid {other}) than the Unix socket (pid {pid})"),
            format!("end the one that is not wanted: `kill {other}`"),
        ),
        None => failed(
            format!("the broker (pid {pid}) listens on {address}, but another program answers there, or none"),
            "look who listens on the port: `ss -ltnp`, on a Mac `lsof -nP -iTCP -sTCP:LISTEN`",
        ),
    }
}

fn unheld(scene: &Scene, port: u16) -> Finding {
    let problem = scene.broker().and_then(|broker| broker.listeners.iter().find_map(|listener| listener.problem.clone()));
    match problem {
        // The broker was told that by the system when it started.
        Some(problem) if kernel::can_tell() => failed(
            format!("nothing listens on port {port} now, but when the broker started: {problem}"),
            "the port is free again: `claude-peers stop`; the broker takes the port when it is started again",
        ),
        Some(problem) => failed(problem, format!("look who listens: `lsof -nP -iTCP:{port} -sTCP:LISTEN`, and end that program")),
        None => failed(format!("nothing listens on 127.0.0.1:{port}"), start_help(scene)).fixes(service::start(scene)),
    }
}

/// What somebody on the port says to `GET /v1/hello`.
struct Greeting {
    /// It answers as our brokers do, be it with a refusal.
    is_broker: bool,
    /// It let us in and said who it is.
    hello: Option<Hello>,
}

/// Says hello to whoever listens on the port; nothing that is worth hiding is said. None if there is no answer in HTTP.
fn greet(port: u16, token: Option<&str>) -> Option<Greeting> {
    // Never through a proxy: it is this machine that is asked.
    let config = ureq::config::Config::builder().timeout_global(Some(GREETING_PATIENCE)).http_status_as_error(false);
    let agent = ureq::Agent::from(config.max_redirects(0).proxy(None).build());
    let mut request = agent.get(format!("http://127.0.0.1:{port}/v1/hello"));
    if let Some(token) = token {
        request = request.header(TOKEN_HEADER, token);
    }
    let mut answer = request.call().ok()?;
    let is_broker = answer.headers().contains_key(API_HEADER);
    let hello = if is_broker && answer.status().is_success() { answer.body_mut().read_json().ok() } else { None };
    Some(Greeting { is_broker, hello })
}
