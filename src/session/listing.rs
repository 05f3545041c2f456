//! A list of peers that fits into one result, however many there are.
//!
//! A client moves a result of more than 25,000 tokens into a file and shows its model only 2 kB of it. A list that is too long
//! first gets shorter summaries. If it is still too long, only some peers are shown. Its note says so.

use crate::wire::{Doing, LinkedMachine, Peer, Peers, Scope, Status, UNLINKED, text::printable_line};
use std::fmt::Write;

/// Most bytes of a list, JSON and readable form together, since a client may count both. A token takes four bytes of prose or
/// three of ids and paths, and rarely fewer than two.
const MOST_BYTES: usize = 48_000;
/// Most bytes of a list with mail beside it, because mail must not be cut.
const LEAVES_ROOM: usize = 12_000;
/// Length of a shortened summary, in characters.
const SHORT_SUMMARY: usize = 120;
/// How many other machines are shown at most.
const MOST_MACHINES: usize = 20;

/// As much of a list as fits.
pub struct Listing {
    pub list: Peers,
    total: usize,
    /// What is missing, and how to get the rest.
    pub note: Option<String>,
    /// Whether mail may be added.
    pub leaves_room: bool,
}

impl Listing {
    /// The peers of `list`, starting at `offset`.
    pub fn new(mut list: Peers, offset: usize) -> Self {
        let total = list.peers.len();
        list.peers.drain(..offset.min(total));
        let more_machines = list.machines.len().saturating_sub(MOST_MACHINES);
        list.machines.truncate(MOST_MACHINES);
        let room = MOST_BYTES.saturating_sub(list.myself.as_ref().map_or(0, size));
        let (mut fitting, mut bytes) = fitting(&list.peers, room);
        let shortened = fitting < list.peers.len();
        if shortened {
            list.peers.iter_mut().for_each(shorten);
            (fitting, bytes) = self::fitting(&list.peers, room);
        }
        // At least one peer is shown, so that the next call makes progress.
        list.peers.truncate(fitting.max(1));
        let next = offset.saturating_add(list.peers.len());
        let mut note = Vec::new();
        if shortened {
            note.push(format!("Summaries are cut to {SHORT_SUMMARY} characters."));
        }
        if next < total {
            let more = total - next;
            note.push(format!("… {more} more; call list_peers with offset {next}, or with a narrower scope, to see them."));
        }
        if more_machines > 0 {
            note.push(format!("{more_machines} more machines are not shown."));
        }
        let leaves_room = note.is_empty() && bytes <= LEAVES_ROOM;
        Self { list, total, note: (!note.is_empty()).then(|| note.join(" ")), leaves_room }
    }

    pub fn readable(&self, scope: Scope) -> String {
        let mut out = String::new();
        let Self { list, total, note, .. } = self;
        if let Some(me) = &list.myself {
            let _ = writeln!(out, "You are {} ({}).", printable_line(&me.name), me.id);
        }
        let scope = scope.as_str();
        let _ = match (total, list.peers.is_empty()) {
            (0, _) => writeln!(out, "No other peers (scope {scope})."),
            (total, true) => writeln!(out, "None here: there are only {total} other peers (scope {scope})."),
            (1, _) => writeln!(out, "1 other peer (scope {scope}):"),
            (total, _) => writeln!(out, "{total} other peers (scope {scope}):"),
        };
        out.extend(list.peers.iter().map(readable));
        out.push_str(&machines(list));
        out.extend(note.as_deref());
        out.trim_end().to_owned()
    }
}

fn machines(list: &Peers) -> String {
    let machine = |machine: &LinkedMachine| match machine.away_since {
        Some(since) => format!("{} has been away since {since}, and mail to its peers waits", machine.name),
        None => format!("{} is there", machine.name),
    };
    let machines: Vec<String> = list.machines.iter().map(machine).collect();
    let unlinked = if list.linked == Some(false) { format!("{UNLINKED}.\n") } else { String::new() };
    if machines.is_empty() { String::new() } else { format!("Other machines: {}.\n{unlinked}", machines.join("; ")) }
}

/// How many of `peers` fit into `room`, and their size in bytes.
fn fitting(peers: &[Peer], room: usize) -> (usize, usize) {
    let sums = peers.iter().scan(0, |sum, peer| {
        *sum += size(peer);
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= room).enumerate().last().map_or((0, 0), |(last, bytes)| (last + 1, bytes))
}

/// The bytes of a peer in both forms.
fn size(peer: &Peer) -> usize {
    let json = serde_json::to_string(peer).map_or(0, |json| json.len() + 1);
    json + readable(peer).len()
}

fn readable(peer: &Peer) -> String {
    let mut out = format!("- {} ({}) in {}", printable_line(&peer.name), peer.id, printable_line(&peer.cwd));
    for (name, value) in
        [("container", &peer.container), ("machine", &peer.machine), ("repo", &peer.git_repo), ("branch", &peer.git_branch)]
    {
        let _ = value.as_ref().map(|value| write!(out, ", {name} {}", printable_line(value)));
    }
    let _ = peer.agent.as_ref().map(|agent| write!(out, ", {}", printable_line(&agent.to_string())));
    let _ = match peer.status {
        Status::Connected => write!(out, ", messages go by {}", printable_line(&peer.delivery_reason)),
        Status::Reconnecting => write!(out, ", reconnecting"),
        Status::Gone => write!(out, ", gone: messages wait for its return"),
    };
    if let Some(activity) = &peer.activity {
        let _ = match (activity.doing, &activity.needs) {
            (Doing::Idle, _) => write!(out, ", idle"),
            (Doing::Working, _) => write!(out, ", working"),
            (Doing::Unattended, _) => write!(out, ", unattended: its user has left"),
            (Doing::NeedsYou, None) => write!(out, ", waits for its user"),
            (Doing::NeedsYou, Some(needs)) => write!(out, ", waits for its user ({})", printable_line(needs)),
        };
    }
    let _ = writeln!(out, ", last seen {}", peer.last_seen);
    if !peer.summary.is_empty() {
        let _ = writeln!(out, "  {}", printable_line(&peer.summary));
    }
    out
}

fn shorten(peer: &mut Peer) {
    if let Some((end, _)) = peer.summary.char_indices().nth(SHORT_SUMMARY) {
        peer.summary.truncate(end);
        peer.summary.push('…');
    }
}
