//! What TAB offers for an argument: the peers and the messages of the broker that runs.
//!
//! TAB starts no broker, prints no error and does not wait for long. If the broker does not answer in time, TAB offers nothing.

use crate::{
    admin::start,
    client::{Client, with_query},
    platform::paths,
    wire::{CLI_SENDER, HistoryEntry, HistoryPage, MessageState, Peer, PeerRef, Peers, Scope, text::first_words},
};
use clap_complete::{ArgValueCompleter, CompletionCandidate};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{ffi::OsStr, time::Duration};
use tokio::{
    runtime::{Builder, LocalOptions},
    time::timeout,
};

/// A broker answers in milliseconds. Somebody who presses TAB does not wait for one that hangs.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many of the newest messages are offered.
const NEWEST: u32 = 50;
/// Characters of a description.
const SHOWN: usize = 60;

/// The peers.
pub fn peers() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| fitting_peers(typed, &[]))
}

/// The peers and the scopes.
pub fn recipients() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let scopes = [Scope::Repo, Scope::Directory, Scope::Machine].map(|scope| format!("@{}", scope.as_str()));
        fitting_peers(
            typed,
            &[(&scopes[0], "all in this repository"), (&scopes[1], "all in this directory"), (&scopes[2], "all")],
        )
    })
}

/// The peers and the command line, whose messages the history has, too.
pub fn correspondents() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| fitting_peers(typed, &[(CLI_SENDER, "you")]))
}

/// The newest messages.
pub fn messages() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| fitting_messages(typed, None))
}

/// The newest messages that are held.
pub fn held_messages() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| fitting_messages(typed, Some(MessageState::Held)))
}

fn fitting_peers(typed: &OsStr, others: &[(&str, &str)]) -> Vec<CompletionCandidate> {
    let peers =
        ask::<Peers>(&with_query("/v1/peers", &json!({ "scope": Scope::Machine }))).map_or_else(Vec::new, |all| all.peers);
    // A peer whose name does not parse as a `PeerRef` is offered by its id.
    let named = peers.iter().filter(|peer| peer.name.parse::<PeerRef>().is_ok());
    let others = others.iter().map(|(name, what)| candidate(name, what));
    let mut offered: Vec<_> = named.map(|peer| candidate(&peer.name, &about(peer))).chain(others).collect();
    offered.retain(|candidate| fits(candidate, typed));
    if offered.is_empty() {
        offered.extend(peers.iter().map(|peer| candidate(peer.id.as_str(), &about(peer))));
        offered.retain(|candidate| fits(candidate, typed));
    }
    offered
}

fn about(peer: &Peer) -> String {
    if peer.summary.is_empty() { peer.cwd.clone() } else { peer.summary.clone() }
}

/// A message is offered by its number, unless more of its id is typed.
fn fitting_messages(typed: &OsStr, state: Option<MessageState>) -> Vec<CompletionCandidate> {
    let page = ask::<HistoryPage>(&with_query("/v1/history", &json!({ "limit": NEWEST, "state": state })));
    let whole = typed.as_encoded_bytes().contains(&b'-');
    let offer = |HistoryEntry { from_name, text, receipt }: HistoryEntry| {
        let id = receipt.message_id;
        let id = if whole { id.to_string() } else { format!("m{}", id.seq()) };
        candidate(&id, &format!("{from_name} → {}: {text}", receipt.to_name))
    };
    let offered = page.into_iter().flat_map(|page| page.messages).map(offer);
    offered.filter(|candidate| fits(candidate, typed)).collect()
}

/// What others wrote is shown as one harmless line.
fn candidate(value: &str, about: &str) -> CompletionCandidate {
    CompletionCandidate::new(value).help(Some(first_words(about, SHOWN).into()))
}

fn fits(candidate: &CompletionCandidate, typed: &OsStr) -> bool {
    candidate.get_value().as_encoded_bytes().starts_with(typed.as_encoded_bytes())
}

/// The broker's answer; none if no broker runs or it does not answer.
fn ask<T: DeserializeOwned>(path: &str) -> Option<T> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).ok()?;
    runtime.block_on(async {
        let socket = paths::socket().ok()?;
        let answer = async {
            if !start::is_running(&socket).await {
                return None;
            }
            Client::new(socket, "claude-peers").get(path, None).await.ok()
        };
        timeout(PATIENCE, answer).await.ok().flatten()
    })
}
