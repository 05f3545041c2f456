//! The environment: unusable settings, and settings that this shell has but the service lacks.

use super::{
    finding::{Finding, failed, ok, warning},
    scene::Scene,
};
use crate::{
    admin::manager::Units,
    platform::{
        paths,
        settings::{self, ALL, Setting},
    },
};
use std::{collections::BTreeMap, path::Path};

/// Every setting that is unusable or does not reach the service; one finding if all is well.
pub async fn check(scene: &Scene) -> Vec<Finding> {
    let help = "correct or unset the variable, also where your shell sets it";
    let mut findings: Vec<_> =
        ALL.iter().filter_map(|setting| setting.set().err()).map(|error| failed(error.to_string(), help)).collect();
    if let (true, Err(error)) = (findings.is_empty(), paths::database().and(paths::socket())) {
        findings.push(failed(error.to_string(), help)); // no home directory, or one with a long path
    }
    if let Some(units) = scene.installed_units() {
        findings.extend(other_socket(scene, units));
        findings.extend(unknown_to_the_service(units).await);
    }
    if findings.is_empty() {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let set: Vec<_> = names.filter(|name| name.starts_with("CLAUDE_PEERS_")).collect();
        findings.push(ok(if set.is_empty() { "none is set".to_owned() } else { format!("valid: {}", set.join(", ")) }));
    }
    findings
}

/// The service listens on another address than this shell expects: sessions started from here find another broker, or none.
fn other_socket(scene: &Scene, units: &Units) -> Option<Finding> {
    let (Ok(ours), Some(theirs)) = (&scene.socket, units.socket.listen().map(Path::new)) else { return None };
    let (ours, theirs) = (ours != theirs).then_some((ours.display(), theirs.display()))?;
    let what = format!("programs started from here look for the broker at {ours}, the service listens at {theirs}");
    let help = match settings::raw(settings::SOCKET.name) {
        Some(_) => "unset CLAUDE_PEERS_SOCKET, also where your shell sets it",
        None => "set XDG_RUNTIME_DIR as your login does (`systemctl --user show-environment` shows it)",
    };
    Some(if scene.broker().is_some() { warning(what, help) } else { failed(what, help) })
}

/// The broker's settings in this shell that the service lacks or has with another value.
async fn unknown_to_the_service(units: &Units) -> Vec<Finding> {
    let manager = units.systemd.call(["show-environment"]).run().await.unwrap_or_default();
    let mut theirs: BTreeMap<&str, &str> = manager.lines().filter_map(|line| line.split_once('=')).collect();
    theirs.extend(units.service.get("Environment").split_whitespace().filter_map(|pair| pair.split_once('=')));
    let finding = |Setting { name, .. }: &Setting| {
        let ours = settings::raw(name)?;
        let theirs = theirs.get(name);
        let shown = theirs.map_or_else(|| "not set".to_owned(), |value| format!("{value:?}"));
        let what = format!("{name} is set here, but for the service it is {shown}: the service does not see what a shell sets");
        let help = format!("`systemctl --user edit claude-peers`, there under [Service]: Environment={name}=…; or unset it here");
        theirs.is_none_or(|theirs| ours != **theirs).then(|| warning(what, help))
    };
    ALL.iter().filter(|setting| setting.is_brokers()).filter_map(finding).collect()
}
