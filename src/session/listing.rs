//! A list of peers that fits into one result, however many there are.
//!
//! A client moves a result of more than 25,000 tokens into a file and shows its model 2 kB of it. So a list that is too long gets
//! short summaries first; if it is still too long, it shows a part of the peers. Its note says so.

use super::words;
use crate::wire::{Peer, Peers};

/// Most bytes of a list, JSON and readable form together, since a client may count both. A token is four bytes of prose, three of
/// ids and paths, and hardly ever less than two.
const MOST_BYTES: usize = 48_000;
/// Most bytes of a list that takes mail beside it: mail must not be cut.
const LEAVES_ROOM: usize = 12_000;
/// Length of a shortened summary, in characters.
const SHORT_SUMMARY: usize = 120;

/// As much of a list as fits.
pub struct Listing {
    /// The peers that are shown.
    pub list: Peers,
    /// How many there are in all.
    pub total: usize,
    /// What is missing, and how to get it.
    pub note: Option<String>,
    /// Mail may stand beside it.
    pub leaves_room: bool,
}

impl Listing {
    /// The peers of `list` from the one at `offset` on.
    pub fn new(mut list: Peers, offset: usize) -> Self {
        let total = list.peers.len();
        list.peers.drain(..offset.min(total));
        let room = MOST_BYTES.saturating_sub(list.myself.as_ref().map_or(0, size));
        let (mut fitting, mut bytes) = fitting(&list.peers, room);
        let shortened = fitting < list.peers.len();
        if shortened {
            list.peers.iter_mut().for_each(shorten);
            (fitting, bytes) = self::fitting(&list.peers, room);
        }
        // One is always shown, so that the next call gets further.
        list.peers.truncate(fitting.max(1));
        let next = offset.saturating_add(list.peers.len());
        let mut note = Vec::new();
        if shortened {
            note.push(format!("Summaries are cut to {SHORT_SUMMARY} characters."));
        }
        if next < total {
            note.push(format!(
                "… {} more; call list_peers with offset {next}, or with a narrower scope, to see them.",
                total - next
            ));
        }
        let leaves_room = note.is_empty() && bytes <= LEAVES_ROOM;
        Self { list, total, note: (!note.is_empty()).then(|| note.join(" ")), leaves_room }
    }
}

/// How many of `peers` fit into `room`, and the bytes that they take.
fn fitting(peers: &[Peer], room: usize) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0);
    for peer in peers {
        let more = bytes + size(peer);
        if more > room {
            break;
        }
        (count, bytes) = (count + 1, more);
    }
    (count, bytes)
}

/// The bytes of a peer in both forms.
fn size(peer: &Peer) -> usize {
    let json = serde_json::to_string(peer).map_or(0, |json| json.len() + 1);
    json + words::peer(peer).len()
}

fn shorten(peer: &mut Peer) {
    if let Some((end, _)) = peer.summary.char_indices().nth(SHORT_SUMMARY) {
        peer.summary.truncate(end);
        peer.summary.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Scope;
    use serde_json::json;

    fn peers(count: usize, summary: &str) -> Peers {
        let peer = |number: usize| {
            json!({
                "id": format!("k7x{number:03}"), "name": format!("worker-{number}"), "cwd": format!("/srv/worker-{number}"),
                "gitRepo": "worker", "gitBranch": "main", "summary": summary, "lastSeen": "2026-05-16T12:36:00Z",
                "status": "connected", "delivery": "pull", "deliveryReason": "pull: no hooks, no channel", "waiting": 0,
                "registeredAt": "2026-05-16T12:36:00Z",
            })
        };
        let peers: Vec<_> = (1..=count).map(peer).collect();
        serde_json::from_value(json!({"peers": peers, "self": peer(0)})).expect("peers")
    }

    fn bytes(listing: &Listing) -> usize {
        json!(listing.list).to_string().len() + words::peers(listing, Scope::Machine).len()
    }

    #[test]
    fn summaries_are_cut_before_peers_are_left_out() {
        let listing = Listing::new(peers(10, "Building"), 0);
        assert_eq!((listing.list, listing.note, listing.leaves_room), (peers(10, "Building"), None, true));
        assert!(!Listing::new(peers(40, "Building"), 0).leaves_room);
        let listing = Listing::new(peers(40, &"é".repeat(1_000)), 0);
        assert_eq!((listing.list.peers.len(), listing.leaves_room), (40, false));
        assert_eq!(listing.list.peers[0].summary, "é".repeat(120) + "…");
        assert_eq!(listing.note.as_deref(), Some("Summaries are cut to 120 characters."));
    }

    #[test]
    fn every_peer_is_on_one_page() {
        for (count, summary) in [(1_000, "Building"), (300, &*"😀".repeat(1_000)), (3, &*"\u{1}".repeat(1_000)), (0, "")] {
            let (mut seen, mut pages) = (Vec::new(), 0);
            loop {
                let listing = Listing::new(peers(count, summary), seen.len());
                assert!(bytes(&listing) <= MOST_BYTES + 1_000, "{} bytes", bytes(&listing));
                seen.extend(listing.list.peers.iter().map(|peer| peer.id.clone()));
                pages += 1;
                let Some(note) = listing.note.filter(|note| note.contains("more;")) else { break };
                let next = format!("… {} more; call list_peers with offset {}", count - seen.len(), seen.len());
                assert!(note.contains(&next) && pages < 50, "{note}");
            }
            let all: Vec<_> = peers(count, summary).peers.into_iter().map(|peer| peer.id).collect();
            assert_eq!(seen, all);
        }
        let past = Listing::new(peers(3, "x"), usize::MAX);
        assert!(past.list.peers.is_empty() && words::peers(&past, Scope::Machine).contains("only 3"), "the list ends before");
    }
}
