//! `start` and `restart`: the service manager runs the broker. Where there is none, as in most containers, it runs in the background.
//! Either returns once the broker answers.

use super::{
    manager::{Absent, Manager, SERVICE, SOCKET},
    place::this_program,
    stop,
};
use crate::{
    client::Client,
    console::{Failure, LIMITS, Out},
    platform::{paths, retry::Retry},
    wire::Hello,
};
use serde::Serialize;
use std::{
    fs::{self, DirBuilder, File},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(10);
const READY: Retry = Retry { pause: (Duration::from_millis(5), Duration::from_millis(100)), patience: PATIENCE };
/// Variables that would tie the broker to the service, or to the terminal, that starts it.
const TIES: [&str; 6] = ["NOTIFY_SOCKET", "JOURNAL_STREAM", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "INVOCATION_ID"];
const SETUP: &str = "run `claude-peers setup`";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    pid: u32,
    version: String,
    /// It ran before.
    already: bool,
    /// The log of a broker in the background.
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<PathBuf>,
}

impl Started {
    fn new(hello: Hello, already: bool, log: Option<PathBuf>) -> Self {
        Self { pid: hello.pid, version: hello.version, already, log }
    }

    fn text(&self) -> String {
        let pid = self.pid;
        match (&self.log, self.already) {
            (_, true) => format!("The broker runs already (pid {pid}).\n"),
            (None, _) => format!("The broker runs (pid {pid}), as a service.\n"),
            (Some(log), _) => format!("The broker runs in the background (pid {pid}).\n{ONCE}\nIts log: {}\n", log.display()),
        }
    }
}

const ONCE: &str = "Nothing starts it when this machine starts again: run `claude-peers start` then.";

pub async fn start(broker: &Client, out: Out) -> Result<(), Failure> {
    let manager = Manager::find().await;
    let started = match (&manager, manager.runs_broker().await) {
        (Manager::None(_), _) if let Ok(hello) = broker.hello().await => Started::new(hello, true, None),
        (_, Some(Ok(true))) => Started::new(ready(broker).await?, true, None),
        _ => bring_up(&manager, broker).await?,
    };
    out.answer(&started, |started, _| started.text())
}

pub async fn restart(broker: &Client, out: Out) -> Result<(), Failure> {
    let manager = Manager::find().await;
    let started = match (manager.restart(), manager.runs_broker().await) {
        (Some(restart), Some(Ok(true))) => {
            restart.run().await?;
            Started::new(ready(broker).await?, false, None)
        }
        _ => {
            if matches!(manager, Manager::None(_)) && broker.hello().await.is_ok() {
                stop::stop(broker).await?;
            }
            bring_up(&manager, broker).await?
        }
    };
    out.answer(&started, |started, _| started.text())
}

/// Whether a connection to `socket` reaches a broker that runs, or fails. It does not make the service manager start one.
pub async fn is_running(socket: &Path) -> bool {
    let manager = Manager::find().await;
    let of_service = paths::home().ok().and_then(|home| manager.socket(&home));
    match &manager {
        _ if of_service.as_deref() != Some(socket) => true,
        Manager::Systemd(systemd) => {
            systemd.our_units().await.is_ok_and(|units| units.service.is_active() || !units.socket.is_active())
        }
        _ => matches!(manager.runs_broker().await, Some(Ok(true))),
    }
}

async fn bring_up(manager: &Manager, broker: &Client) -> Result<Started, Failure> {
    match manager {
        Manager::Systemd(systemd) => {
            if !systemd.our_units().await?.installed() {
                return Err(Failure::local("systemd does not know the broker", SETUP));
            }
            systemd.on("start", [SOCKET, SERVICE]).run().await?;
        }
        Manager::Launchd(launchd) => {
            if !launchd.knows().await {
                return Err(Failure::local("launchd does not know the broker", SETUP));
            }
            launchd.on(&["kickstart"]).run().await?;
        }
        Manager::None(absent) => {
            let (hello, log) = unmanaged(absent).await?;
            return Ok(Started::new(hello, false, Some(log)));
        }
    }
    Ok(Started::new(ready(broker).await?, false, None))
}

async fn ready(broker: &Client) -> Result<Hello, Failure> {
    Ok(READY.run(async || broker.hello().await, Result::is_err).await?)
}

async fn unmanaged(absent: &Absent) -> Result<(Hello, PathBuf), Failure> {
    match absent.help {
        Some(help) => Err(Failure::local(&absent.reason, help)),
        None => in_background(this_program()?.parent().unwrap_or(Path::new("/"))).await,
    }
}

/// The log of a broker in the background. A new broker keeps the log of the one before it, under another name.
pub fn log() -> Result<PathBuf, Failure> {
    Ok(paths::socket()?.with_extension("log"))
}

/// Starts the broker in `bin` in the background; it outlives this process and its terminal. Waits until it answers.
pub async fn in_background(bin: &Path) -> Result<(Hello, PathBuf), Failure> {
    let log = log()?;
    let mut process = spawn(bin, &log)?;
    let broker = Client::new(paths::socket()?, "claude-peers");
    let failed = |what: String| Failure::local(what, format!("its log tells why: {}", log.display()));
    tokio::select! {
        hello = READY.run(async || broker.hello().await, Result::is_err) => match hello {
            Ok(hello) => Ok((hello, log)),
            Err(error) => Err(failed(format!("claude-peersd was not ready within {} s: {error}", PATIENCE.as_secs()))),
        },
        ended = process.wait() => {
            let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            let said = fs::read_to_string(&log).unwrap_or_default();
            Err(failed(format!("claude-peersd ended before it was ready ({how}): {}", said.lines().last().unwrap_or_default())))
        }
    }
}

fn spawn(bin: &Path, log: &Path) -> Result<tokio::process::Child, Failure> {
    let folder = log.parent().unwrap_or(Path::new("/"));
    let help = "make it writable for you";
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| Failure::io("making", folder, &e, help))?;
    drop(fs::rename(log, log.with_extension("log.old"))); // there may be none
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(log);
    let file = file.map_err(|e| Failure::io("writing", log, &e, help))?;
    let program = bin.join("claude-peersd");
    let mut command = Command::new(&program);
    for variable in TIES {
        command.env_remove(variable);
    }
    // A group of its own: Ctrl-C in the terminal does not reach it.
    command.process_group(0).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    command.spawn().map_err(|error| {
        let help = match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied => "install all three programs together",
            _ => LIMITS,
        };
        Failure::io("running", &program, &error, help)
    })
}
