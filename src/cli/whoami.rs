//! `whoami`: the peer whose session runs this command.

use super::peers;
use crate::{
    client::{Client, with_query},
    console::{Failure, Look, Out, Tone},
    platform::{process, settings},
    wire::{Peer, Result as Answered, text::printable_line},
};
use serde_json::json;

/// Asks by the session's id and by the agent process, an ancestor of this one: after `/clear` the id may be new.
pub async fn run(broker: &Client, out: Out) -> Result<(), Failure> {
    let session = settings::text("CLAUDE_CODE_SESSION_ID")?;
    let query = json!({ "pids": ancestors(), "sessionId": session });
    out.answer(&broker.get::<Peer>(&with_query("/v1/whoami", &query), None).await?, render)
}

/// Asks by the agent process alone.
pub(super) async fn by_process(broker: &Client) -> Answered<Peer> {
    broker.get(&with_query("/v1/whoami", &json!({ "pids": ancestors() })), None).await
}

fn ancestors() -> String {
    process::ancestors(std::process::id()).iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

fn render(peer: &Peer, look: Look) -> String {
    let (status, tone) = peers::status(peer.status);
    let mut facts = vec![
        ("name", look.paint(Tone::Strong, printable_line(&peer.name))),
        ("id", peer.id.to_string()),
        ("status", look.paint(tone, status)),
        ("delivery", printable_line(&peer.delivery_reason).into_owned()),
        ("waiting", peer.waiting.to_string()),
        ("directory", printable_line(&peer.cwd).into_owned()),
    ];
    let optional = [("container", &peer.container), ("repository", &peer.git_repo), ("branch", &peer.git_branch)];
    facts.extend(optional.into_iter().filter_map(|(name, value)| Some((name, printable_line(value.as_deref()?).into_owned()))));
    facts.extend(peer.agent.as_ref().map(|agent| ("agent", printable_line(&agent.to_string()).into_owned())));
    facts.push(("summary", printable_line(&peer.summary).into_owned()));
    look.facts(&facts)
}
