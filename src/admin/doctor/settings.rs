//! The environment: settings that cannot be used, and those that this shell has and the service has not.

use super::{
    Finding,
    database::Looked,
    failed, ok,
    scene::{Door, Scene},
    warning,
};
use crate::{
    admin::manager::Units,
    platform::settings::{self, InvalidSetting},
    wire::{DeliveryChoice, InboundRule},
};
use std::{collections::BTreeMap, path::Path};

/// What the broker reads beside its socket's place. The service gets it from its unit or from the manager, not from a shell.
const BROKERS: [&str; 12] = [
    "CLAUDE_PEERS_PORT",
    "CLAUDE_PEERS_DB",
    "CLAUDE_PEERS_LOG",
    "CLAUDE_PEERS_IDLE_EXIT",
    "CLAUDE_PEERS_RATE_LIMIT",
    "CLAUDE_PEERS_RATE_BURST",
    "CLAUDE_PEERS_REPEAT_LIMIT",
    "CLAUDE_PEERS_TEXT_LIMIT",
    "CLAUDE_PEERS_SUMMARY_LIMIT",
    "CLAUDE_PEERS_WAITING_LIMIT",
    "CLAUDE_PEERS_EXPIRY",
    "CLAUDE_PEERS_HISTORY",
];

/// Every setting that cannot be used or does not reach the service; one finding if all is well.
pub async fn check(scene: &Scene) -> Vec<Finding> {
    let help = "correct or unset the variable, also where your shell sets it";
    let mut findings: Vec<_> = unusable(scene).into_iter().map(|what| failed(what, help)).collect();
    if let Some(units) = scene.installed_units() {
        findings.extend(other_socket(scene, units));
        findings.extend(unknown_to_the_service(units).await);
    }
    if findings.is_empty() {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let set: Vec<_> = names.filter(|name| name.starts_with("CLAUDE_PEERS_")).collect();
        let what =
            if set.is_empty() { "all as they are by default".to_owned() } else { format!("can be used: {}", set.join(", ")) };
        findings.push(ok(what));
    }
    findings
}

fn unusable(scene: &Scene) -> Vec<String> {
    fn words<T>(result: &Result<T, InvalidSetting>) -> Option<String> {
        result.as_ref().err().map(InvalidSetting::to_string)
    }
    let delivery = settings::parsed("CLAUDE_PEERS_DELIVERY", "auto, inbox, channel or pull", DeliveryChoice::parse);
    let inbound = settings::parsed("CLAUDE_PEERS_INBOUND", "match or accept", InboundRule::chosen);
    let of_database = if let Looked::Setting(what) = &scene.looked { Some(what.clone()) } else { None };
    let wrong =
        [words(&scene.socket), words(&scene.port), words(&scene.database), words(&delivery), words(&inbound), of_database];
    let mut wrong: Vec<_> = wrong.into_iter().flatten().collect();
    wrong.dedup();
    wrong
}

/// The service listens elsewhere than this shell looks: sessions started from here find another broker, or none.
fn other_socket(scene: &Scene, units: &Units) -> Option<Finding> {
    let (Ok(ours), Some(theirs)) = (&scene.socket, units.socket.listen().map(Path::new)) else { return None };
    if ours == theirs {
        return None;
    }
    let (ours, theirs) = (ours.display(), theirs.display());
    let what = format!("programs started from here look for the broker at {ours}, the service listens at {theirs}");
    let help = match settings::raw("CLAUDE_PEERS_SOCKET") {
        Some(_) => "unset CLAUDE_PEERS_SOCKET, also where your shell sets it",
        None => "set XDG_RUNTIME_DIR as your login does (`systemctl --user show-environment` shows it)",
    };
    Some(if matches!(scene.door, Door::Broker(..)) { warning(what, help) } else { failed(what, help) })
}

/// Settings of the broker that this shell has and the service has not, or has otherwise.
async fn unknown_to_the_service(units: &Units) -> Vec<Finding> {
    let manager = units.systemd.call(["show-environment"]).run().await.unwrap_or_default();
    let mut theirs: BTreeMap<&str, &str> = manager.lines().filter_map(|line| line.split_once('=')).collect();
    theirs.extend(units.service.get("Environment").split_whitespace().filter_map(|pair| pair.split_once('=')));
    let finding = |name: &&str| {
        let ours = settings::raw(name)?;
        let theirs = theirs.get(name);
        let shown = theirs.map_or_else(|| "not set".to_owned(), |value| format!("{value:?}"));
        let what = format!("{name} is set here, but for the service it is {shown}: what is set in a shell does not reach it");
        let help = format!("`systemctl --user edit claude-peers`, there under [Service]: Environment={name}=…; or unset it here");
        theirs.is_none_or(|theirs| ours != **theirs).then(|| warning(what, help))
    };
    BROKERS.iter().filter_map(finding).collect()
}
