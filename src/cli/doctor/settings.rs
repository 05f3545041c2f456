//! The environment: settings that cannot be used, and those that this shell has and the service has not.

use super::{
    Finding,
    database::Looked,
    scene::{Door, Scene, Units},
};
use crate::{
    settings::{self, InvalidSetting},
    wire::DeliveryChoice,
};
use std::{collections::BTreeMap, path::Path};

const SETTINGS: &str = "settings";
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
    let mut findings: Vec<_> = unusable(scene)
        .into_iter()
        .map(|what| Finding::failed(SETTINGS, what, "correct or unset the variable, also where your shell sets it"))
        .collect();
    if let Some(units) = scene.units.as_ref().filter(|units| units.installed()) {
        findings.extend(other_socket(scene, units));
        findings.extend(unknown_to_the_service(units).await);
    }
    if findings.is_empty() {
        let set: Vec<_> = std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .filter(|name| name.starts_with("CLAUDE_PEERS_"))
            .collect();
        let what =
            if set.is_empty() { "all as they are by default".to_owned() } else { format!("can be used: {}", set.join(", ")) };
        findings.push(Finding::ok(SETTINGS, what));
    }
    findings
}

fn unusable(scene: &Scene) -> Vec<String> {
    let words = |error: &InvalidSetting| error.to_string();
    let delivery =
        settings::parsed("CLAUDE_PEERS_DELIVERY", "auto, hook, channel or pull", |text| text.parse::<DeliveryChoice>().ok());
    let mut wrong: Vec<String> = [
        scene.socket.as_ref().err().map(words),
        scene.port.as_ref().err().map(words),
        scene.database.as_ref().err().map(words),
        delivery.as_ref().err().map(words),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Looked::Setting(what) = &scene.looked {
        wrong.push(what.clone());
    }
    wrong.dedup();
    wrong
}

/// The service listens elsewhere than this shell looks: sessions started from here find another broker, or none.
fn other_socket(scene: &Scene, units: &Units) -> Option<Finding> {
    let (Ok(ours), Some(theirs)) = (&scene.socket, units.socket.listen.as_ref().map(Path::new)) else { return None };
    if ours == theirs {
        return None;
    }
    let what = format!(
        "programs started from here look for the broker at {}, the service listens at {}",
        ours.display(),
        theirs.display()
    );
    let help = match settings::raw("CLAUDE_PEERS_SOCKET") {
        Some(_) => "unset CLAUDE_PEERS_SOCKET, also where your shell sets it",
        None => "set XDG_RUNTIME_DIR as your login does (`systemctl --user show-environment` shows it)",
    };
    Some(match scene.door {
        Door::Broker(..) => Finding::warning(SETTINGS, what, help),
        _ => Finding::failed(SETTINGS, what, help),
    })
}

/// Settings of the broker that this shell has and the service has not, or has otherwise.
async fn unknown_to_the_service(units: &Units) -> Vec<Finding> {
    let manager = units.systemd.call(["show-environment"]).run().await.unwrap_or_default();
    let mut theirs: BTreeMap<&str, &str> = manager.lines().filter_map(|line| line.split_once('=')).collect();
    theirs.extend(units.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let differs = |name: &&str| {
        let ours = settings::raw(name);
        ours.is_some_and(|ours| theirs.get(name).is_none_or(|theirs| ours != **theirs))
    };
    let told = |name: &str| {
        let theirs = theirs.get(name).map_or_else(|| "not set".to_owned(), |value| format!("{value:?}"));
        Finding::warning(
            SETTINGS,
            format!("{name} is set here, but for the service it is {theirs}: what is set in a shell does not reach it"),
            format!("`systemctl --user edit claude-peers`, there under [Service]: Environment={name}=…; or unset it here"),
        )
    };
    BROKERS.iter().filter(|name| differs(name)).map(|name| told(name)).collect()
}
