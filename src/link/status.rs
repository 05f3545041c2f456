//! `status`: whether the link works, step by step.

use super::{args::StatusArgs, home::Home, report::print_all, run::broker, service, subject};
use crate::wire::{self, Code, Error};
use std::time::Instant;

/// What was looked at, and what was found.
#[derive(Debug, serde::Serialize)]
struct Check {
    what: &'static str,
    ok: bool,
    found: String,
}

pub(super) async fn run(StatusArgs { json }: StatusArgs) -> wire::Result<()> {
    let home = Home::open()?;
    let checks = look(&home).await;
    print_all(json, &checks, |Check { what, ok, found }| {
        format!("{} {what}: {}", if *ok { "ok     " } else { "problem" }, wire::text::printable_line(found))
    })?;
    match checks.iter().filter(|check| !check.ok).count() {
        0 => Ok(()),
        failed => Err(Error::new(Code::Internal, format!("{failed} of {} checks failed", checks.len()))),
    }
}

async fn look(home: &Home) -> Vec<Check> {
    let check = |what, found: wire::Result<String>| match found {
        Ok(found) => Check { what, ok: true, found },
        Err(error) => Check { what, ok: false, found: error.to_string() },
    };
    let members = home.directory().map(|directory| directory.machines.len());
    vec![
        check("machine", members.map(|members| format!("{}, one of {members}", home.name))),
        check("service", service().await),
        check("broker", answers().await),
        check("hub", hub(home).await),
    ]
}

async fn service() -> wire::Result<String> {
    match service::state().await {
        Some(state) if state == "active" => Ok("running".to_owned()),
        Some(state) => Err(Error::new(Code::Internal, format!("not running ({state})")).help(
            "`systemctl --user enable --now claude-peers-link` starts it; `journalctl --user -u claude-peers-link` shows its log",
        )),
        None => Ok("not installed; keep `claude-peers-link run` running instead".to_owned()),
    }
}

async fn answers() -> wire::Result<String> {
    let hello = broker()?.hello().await?;
    Ok(format!("answers (version {})", hello.version))
}

async fn hub(home: &Home) -> wire::Result<String> {
    let hub = home.access()?.connect(subject::inbox(&home.name)).await?;
    let begin = Instant::now();
    let waiting = match hub.waiting(&home.name).await? {
        Some(letters) => format!("{letters} letters wait there for this machine"),
        None => "no link has run yet".to_owned(),
    };
    let trip = begin.elapsed();
    let info = hub.client.server_info();
    Ok(format!("{} answers in {:.1} ms (nats-server {}); {waiting}", home.hub, trip.as_secs_f64() * 1000.0, info.version))
}
