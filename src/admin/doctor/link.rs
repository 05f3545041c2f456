//! The link to other machines: whether it works, on a machine that has joined some. Others hear nothing of it.

use super::{
    finding::{Finding, failed, ok, warning},
    scene::Scene,
};
use crate::{
    admin::{
        manager::{Manager, Unit},
        place::{LINK, program},
    },
    platform::{call::Call, paths},
    wire::text::printable_line,
};
use serde::Deserialize;
use std::{fs, path::Path, time::Duration};

const UNIT: &str = "claude-peers-link.service";
/// The time limit of its own checks. One of them connects to the hub, which may not answer.
const PATIENCE: Duration = Duration::from_secs(60);
const START: &str =
    "`systemctl --user enable --now claude-peers-link`; `journalctl --user -u claude-peers-link` says why it ended";

/// What `claude-peers-link status --json` prints of each thing that it has looked at.
#[derive(Deserialize)]
struct Look {
    what: String,
    ok: bool,
    found: String,
}

pub async fn check(scene: &Scene) -> Vec<Finding> {
    let unit = unit(scene).await;
    // The settings' check says so if the place is not known.
    let Ok(file) = paths::link() else { return Vec::new() };
    match fs::exists(&file) {
        Ok(true) => joined(&file, unit.as_ref()).await,
        Ok(false) => idle(unit.as_ref()).into_iter().collect(),
        Err(error) => vec![failed(format!("{} cannot be read: {error}", file.display()), "make it yours again")],
    }
}

async fn unit(scene: &Scene) -> Option<Unit> {
    let Manager::Systemd(systemd) = &scene.manager else { return None };
    systemd.unit(UNIT).await.ok().filter(Unit::is_loaded)
}

/// The service waits on a machine that has not joined any others.
fn idle(unit: Option<&Unit>) -> Option<Finding> {
    unit.filter(|unit| unit.is_enabled()).map(|_| {
        let help = "`claude-peers link join` with an invitation; or `systemctl --user disable claude-peers-link`";
        warning("the service claude-peers-link is enabled, but this machine has not joined any others", help)
    })
}

async fn joined(file: &Path, unit: Option<&Unit>) -> Vec<Finding> {
    let Some(program) = program(LINK) else {
        let what = "this machine has joined others, but claude-peers-link is not installed: no message leaves or arrives";
        let folder = file.parent().unwrap_or(file).display();
        return vec![failed(
            what,
            format!("install the package claude-peers-link; or leave the other machines: remove {folder}"),
        )];
    };
    let call = Call::new(program.display().to_string(), &program, ["status", "--json"], PATIENCE);
    let output = match call.output().await {
        Ok(output) => output,
        Err(error) => return vec![failed(error.to_string(), "run `claude-peers link status` yourself")],
    };
    match serde_json::from_slice::<Vec<Look>>(&output.stdout) {
        Ok(looks) => judge(&looks, unit),
        Err(_) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let what = format!("`{call}` gives no report: {}", printable_line(said.trim()));
            vec![failed(what, "install claude-peers and claude-peers-link in the same version")]
        }
    }
}

fn judge(looks: &[Look], unit: Option<&Unit>) -> Vec<Finding> {
    let said = |look: &Look| format!("{}: {}", printable_line(&look.what), printable_line(&look.found));
    let problems = looks.iter().filter(|look| !look.ok);
    let mut findings: Vec<_> = problems.map(|look| failed(said(look), help(&look.what))).collect();
    if let Some(unit) = unit.filter(|unit| unit.is_active() && !unit.is_enabled()) {
        let what = format!("{} is not enabled: after the next login, this machine is not linked", unit.name);
        findings.push(warning(what, format!("`systemctl --user enable {}`", unit.name)));
    }
    if findings.is_empty() {
        findings.push(ok(looks.iter().map(said).collect::<Vec<_>>().join("; ")));
    }
    findings
}

/// What to do about a problem.
fn help(what: &str) -> &'static str {
    match what {
        "service" => START,
        "hub" => {
            "see that this machine reaches the hub and that it runs; on its machine, `systemctl --user status claude-peers-hub`"
        }
        "broker" => "see the other checks of the broker",
        _ => "`claude-peers link leave`, then join again with a new invitation",
    }
}
