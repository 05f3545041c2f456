//! Both sockets: whether they are reachable, whether it is this user's broker that answers, and who holds the port otherwise.

use super::{
    Finding,
    fix::Fix,
    programs,
    scene::{Door, Scene, Units},
    service,
};
use crate::{
    cli::manager::Manager,
    kernel, paths, process,
    wire::{self, API_HEADER, BrokerStatus, Code, Hello, TOKEN_HEADER, text::printable_line},
};
use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    time::Duration,
};

const UNIX: &str = "unix-socket";
const TCP: &str = "tcp-socket";
/// How long whoever listens on the port may take to answer.
const GREETING_PATIENCE: Duration = Duration::from_secs(2);

/// The Unix socket.
pub fn unix(scene: &Scene) -> Finding {
    let Ok(socket) = &scene.socket else {
        return Finding::skipped(UNIX, "its place is not known: see settings");
    };
    match &scene.door {
        Door::Broker(broker, _) => open_to_others(socket)
            .unwrap_or_else(|| Finding::ok(UNIX, format!("{}, served by the broker (pid {})", socket.display(), broker.pid))),
        Door::Mute(error) => Finding::failed(UNIX, error.message.clone(), mute_help(scene, error)),
        Door::Closed(error) => closed(scene, socket, error),
        Door::Unknown => Finding::skipped(UNIX, "its place is not known: see settings"),
    }
}

fn closed(scene: &Scene, socket: &Path, error: &io::Error) -> Finding {
    let place = socket.display();
    let found = fs::symlink_metadata(socket);
    // A manager whose file was taken away goes on listening where nobody can connect.
    let deaf = scene.units.as_ref().filter(|units| units.socket.is_active() && units.listens_at(socket));
    let again = deaf.map(|units| units.systemd.restart([units.socket.name.as_str()]));
    let help =
        again.as_ref().map_or_else(|| start_help(scene), |again| format!("have the service manager make it anew: `{again}`"));
    let start = service::start(scene).into_iter().chain(again.map(Fix::Run));
    match (error.kind(), found) {
        (ErrorKind::NotFound, _) => {
            let why =
                if deaf.is_some() { "somebody has removed it" } else { "no broker runs, and no service manager listens for it" };
            Finding::failed(UNIX, format!("there is no {place}: {why}"), help).fixes(start)
        }
        (_, Ok(meta)) if !meta.file_type().is_socket() => Finding::failed(
            UNIX,
            format!("{place} is no socket, but another kind of file"),
            format!("move it away (`mv {place} {place}.old`), then {help}"),
        ),
        (ErrorKind::ConnectionRefused, Ok(_)) => Finding::failed(
            UNIX,
            format!("{place} is stale: the file is there, but nobody listens on it (a broker was killed)"),
            format!("remove it (`rm {place}`), then {help}"),
        )
        .fixes(std::iter::once(Fix::RemoveSocket(socket.to_owned())).chain(start)),
        (ErrorKind::PermissionDenied, _) => Finding::failed(
            UNIX,
            format!("{place} may not be connected to by you: it belongs to another user, or its permissions were changed"),
            "unset CLAUDE_PEERS_SOCKET, or make it yours again: the folder with mode 0700, the socket with 0600",
        ),
        _ => Finding::failed(UNIX, format!("{place} cannot be connected to: {error}"), help),
    }
}

/// Somebody listens, and does not answer as a broker does.
fn mute_help(scene: &Scene, error: &wire::Error) -> String {
    match (error.code, &error.help) {
        (Code::Unreachable, _) if scene.units.as_ref().is_some_and(Units::installed) => {
            "see what is said of the service; a broker that hangs is ended and started by `systemctl --user restart claude-peers`"
                .to_owned()
        }
        (Code::Unreachable, _) if let Manager::Launchd(launchd) = &scene.manager => {
            format!("the broker hangs or ends at once: end it with `{}`; the next connection starts it again", launchd.kill())
        }
        (Code::Unreachable, _) => "the broker hangs or ends at once: end it (`kill` its process) and start it again".to_owned(),
        (_, Some(help)) => help.clone(),
        (_, None) => "look into the broker's log".to_owned(),
    }
}

fn start_help(scene: &Scene) -> String {
    match &scene.units {
        Some(units) if units.installed() => {
            "have the service manager listen: `systemctl --user start claude-peers.socket claude-peers-tcp.socket`".to_owned()
        }
        Some(_) => "`claude-peers setup` has it started whenever it is needed; or run `claude-peersd` in a terminal of its own"
            .to_owned(),
        None if matches!(scene.manager, Manager::None(_)) => "run `claude-peersd` in a terminal of its own".to_owned(),
        None => "`claude-peers setup` has launchd start it whenever it is needed".to_owned(),
    }
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
    let what = format!(
        "{} is open to others (mode {mode:04o}); the broker refuses them, but they should not get that far",
        path.display()
    );
    Some(
        Finding::warning(UNIX, what, format!("chmod {wanted:04o} {}", path.display()))
            .fixes([Fix::Mode(path.to_owned(), wanted)]),
    )
}

/// The TCP socket, which sessions of the reference system use.
pub async fn tcp(scene: &Scene) -> Finding {
    let served =
        scene.broker().and_then(|broker| Some((broker, broker.listeners.iter().find(|listener| listener.kind == "tcp")?)));
    let port = match (served, scene.tcp_port()) {
        (Some((_, listener)), _) => listener.address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0),
        (None, Some(port)) => port,
        (None, None) => return Finding::skipped(TCP, "the port is not known: see settings"),
    };
    if port == 0 {
        return Finding::skipped(TCP, "CLAUDE_PEERS_PORT=0 means any free port, and no broker runs that could say which");
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
    let tcp_unit = scene.units.as_ref().filter(|units| units.tcp.is_active());
    if ours && tcp_unit.is_some() && served.is_none() {
        return Finding::skipped(
            TCP,
            format!("the service manager holds port {port} for the broker, which does not answer: see above"),
        );
    }
    let pid = kernel::owner(holder.inode);
    let command =
        pid.map(|pid| printable_line(&process::command_line(pid).join(" ")).into_owned()).filter(|words| !words.is_empty());
    let process = match (pid, command) {
        (Some(pid), Some(command)) => format!(" (process {pid}: {command})"),
        (Some(pid), None) => format!(" (process {pid})"),
        (None, _) => String::new(),
    };
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
    Finding::failed(
        TCP,
        format!(
            "port {port} is held by {who}{process}; sessions of the reference system cannot reach your broker, all others can"
        ),
        format!("{end}; or take another port for yours: `claude-peers setup --port {}`", next_port(port)),
    )
}

/// The broker says that it listens: whether it is the one that answers there.
fn served_by(scene: &Scene, broker: &BrokerStatus, port: u16) -> Finding {
    let address = format!("127.0.0.1:{port}");
    let token = scene.socket.as_ref().ok().and_then(|socket| fs::read_to_string(paths::token(socket)).ok());
    match greet(port, token.as_deref()) {
        Some(Greeting { hello: Some(hello), .. }) if hello.pid == broker.pid => {
            Finding::ok(TCP, format!("{address}, served by the same broker"))
        }
        Some(Greeting { hello: Some(hello), .. }) => Finding::failed(
            TCP,
            format!("{address} is served by another broker (pid {}) than the Unix socket (pid {})", hello.pid, broker.pid),
            format!("end the one that is not wanted: `kill {}`", hello.pid),
        ),
        _ => Finding::failed(
            TCP,
            format!("the broker (pid {}) listens on {address}, but another program answers there, or none", broker.pid),
            "look who listens on the port: `ss -ltnp`, on a Mac `lsof -nP -iTCP -sTCP:LISTEN`",
        ),
    }
}

fn unheld(scene: &Scene, port: u16) -> Finding {
    let problem = scene.broker().and_then(|broker| broker.listeners.iter().find_map(|listener| listener.problem.clone()));
    match problem {
        // The broker was told that by the system when it started.
        Some(problem) if kernel::can_tell() => Finding::failed(
            TCP,
            format!("nothing listens on port {port} now, but when the broker started: {problem}"),
            "the port is free again: `claude-peers stop`; the broker takes the port when it is started again",
        ),
        Some(problem) => {
            Finding::failed(TCP, problem, format!("look who listens: `lsof -nP -iTCP:{port} -sTCP:LISTEN`, and end that program"))
        }
        None => {
            Finding::failed(TCP, format!("nothing listens on 127.0.0.1:{port}"), start_help(scene)).fixes(service::start(scene))
        }
    }
}

fn next_port(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(paths::DEFAULT_PORT)
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
    let config = ureq::config::Config::builder()
        .timeout_global(Some(GREETING_PATIENCE))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .build();
    let mut request = ureq::Agent::from(config).get(format!("http://127.0.0.1:{port}/v1/hello"));
    if let Some(token) = token {
        request = request.header(TOKEN_HEADER, token);
    }
    let mut answer = request.call().ok()?;
    let is_broker = answer.headers().contains_key(API_HEADER);
    let hello = if is_broker && answer.status().is_success() { answer.body_mut().read_json().ok() } else { None };
    Some(Greeting { is_broker, hello })
}
