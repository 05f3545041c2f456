//! What the live view holds, and what a key does to it. No terminal, no broker.

use super::feed::News;
use crate::cli::peers::doing;
use crate::wire::{CLI_SENDER, HistoryEntry, MessageId, Peer, PeerId, Status, WatchEvent};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::collections::{BTreeMap, BTreeSet};

/// How many messages are kept; older ones are loaded again when someone scrolls to them.
const KEPT: usize = 2_000;
/// How many are kept for someone who has scrolled back.
const KEPT_BACK: usize = 10_000;
/// How many peers that are gone are kept.
const KEPT_GONE: usize = 100;

/// Which list the arrow keys move in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Focus {
    Peers,
    #[default]
    Messages,
}

/// A line that is being typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Typing {
    Filter,
    Message(Draft),
}

/// A message that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub to: PeerId,
    pub to_name: String,
    pub reply_to: Option<MessageId>,
    pub text: String,
}

/// A conversation, shown in full, oldest message first.
#[derive(Debug, Default)]
pub struct Thread {
    pub messages: Vec<HistoryEntry>,
    /// How many lines are above the view.
    pub scrolled: u16,
}

impl Thread {
    /// Takes in a message that is part of the conversation or answers one of it.
    fn put(&mut self, entry: &HistoryEntry) {
        let receipt = &entry.receipt;
        let is_asked = |other: &HistoryEntry| Some(&other.receipt.message_id) == receipt.reply_to.as_ref();
        if let Some(known) = self.messages.iter_mut().find(|other| other.receipt.message_id == receipt.message_id) {
            known.clone_from(entry);
        } else if self.messages.iter().any(is_asked) {
            self.messages.push(entry.clone());
        }
    }
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Quit,
    Suspend,
    Send(Draft),
    OpenThread(MessageId),
    /// Load messages before this one.
    LoadBefore(MessageId),
}

#[derive(Debug, Default)]
pub struct Model {
    peers: BTreeMap<PeerId, Peer>,
    /// The peers that a new stream has not told yet.
    untold: BTreeSet<PeerId>,
    messages: BTreeMap<i64, HistoryEntry>,
    /// Those of them that the stream has told; a page of the history may be older.
    told: BTreeSet<i64>,
    /// Whether the broker has messages that are older than all here.
    has_older: bool,
    pub focus: Focus,
    peer: Option<PeerId>,
    /// The place of the selected message; none follows the newest.
    message: Option<i64>,
    pub thread: Option<Thread>,
    pub typing: Option<Typing>,
    /// A message that could not be sent; the next one to the same peer begins with its text.
    pub unsent: Option<Draft>,
    pub filter: String,
    /// What happened last, and whether it is a failure.
    pub notice: Option<(bool, String)>,
    /// Why the broker is away.
    pub away: Option<String>,
}

impl Model {
    /// The peers that pass the filter, by name; gone ones last.
    pub fn peers(&self) -> Vec<&Peer> {
        let mut peers: Vec<_> = self.peers.values().filter(|peer| self.picks_peer(peer)).collect();
        peers.sort_by_key(|peer| (peer.status == Status::Gone, &peer.name, &peer.id));
        peers
    }

    /// The messages that pass the filter, oldest first.
    pub fn messages(&self) -> Vec<&HistoryEntry> {
        self.messages.values().filter(|entry| self.picks_message(entry)).collect()
    }

    pub fn counts(&self) -> (usize, u32) {
        let live = self.peers.values().filter(|peer| peer.status != Status::Gone);
        live.fold((0, 0), |(peers, waiting), peer| (peers + 1, waiting + peer.waiting))
    }

    /// The place of the selected peer among `peers`.
    pub fn selected_peer(&self, peers: &[&Peer]) -> Option<usize> {
        let found = peers.iter().position(|peer| Some(&peer.id) == self.peer.as_ref());
        found.or_else(|| (!peers.is_empty()).then_some(0))
    }

    /// The place of the selected message among `messages`.
    pub fn selected_message(&self, messages: &[&HistoryEntry]) -> Option<usize> {
        let last = messages.len().checked_sub(1)?;
        let selected = self.message.map(|seq| messages.partition_point(|entry| entry.receipt.message_id.seq() < seq));
        Some(selected.unwrap_or(last).min(last))
    }

    fn picks_peer(&self, peer: &Peer) -> bool {
        let branch = peer.git_branch.as_deref().unwrap_or_default();
        self.picks(&[&peer.name, peer.id.as_str(), &peer.cwd, branch, &peer.summary, doing(peer).0])
    }

    fn picks_message(&self, entry: &HistoryEntry) -> bool {
        let receipt = &entry.receipt;
        let id = receipt.message_id.to_string();
        self.picks(&[&id, &entry.from_name, &receipt.to_name, receipt.state.as_str(), &entry.text])
    }

    fn picks(&self, texts: &[&str]) -> bool {
        let wanted = self.filter.to_lowercase();
        wanted.is_empty() || texts.iter().any(|text| text.to_lowercase().contains(&wanted))
    }

    /// Takes in what the broker tells.
    pub fn hear(&mut self, news: News) {
        match news {
            News::Open => {
                self.untold = self.peers.keys().cloned().collect();
                self.told.clear();
            }
            News::Event(event) => self.see(*event),
            News::Away(error) | News::Failed(error) => self.away = Some(error.message),
        }
    }

    fn see(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Peer(peer) => {
                self.untold.remove(&peer.id);
                self.peers.insert(peer.id.clone(), peer);
            }
            WatchEvent::Ready => {
                self.away = None;
                std::mem::take(&mut self.untold).iter().for_each(|id| self.leave(id));
            }
            WatchEvent::Left(id) => self.leave(&id),
            WatchEvent::Message(entry) => self.put(entry),
            WatchEvent::Missed(count) => {
                self.notice = Some((true, format!("{count} changes of messages came too fast and are not shown")));
            }
        }
    }

    fn leave(&mut self, id: &PeerId) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.status = Status::Gone;
        }
        let gone = |peer: &&Peer| peer.status == Status::Gone;
        if self.peers.values().filter(gone).count() > KEPT_GONE
            && let Some(oldest) = self.peers.values().filter(gone).min_by_key(|peer| peer.last_seen).map(|peer| peer.id.clone())
        {
            self.peers.remove(&oldest);
        }
    }

    fn put(&mut self, entry: HistoryEntry) {
        if let Some(thread) = &mut self.thread {
            thread.put(&entry);
        }
        let seq = entry.receipt.message_id.seq();
        self.told.insert(seq);
        self.messages.insert(seq, entry);
        // Someone who has scrolled back keeps more of what is there.
        let kept = if self.message.is_none() { KEPT } else { KEPT_BACK };
        while self.messages.len() > kept
            && let Some((oldest, _)) = self.messages.pop_first()
        {
            self.told.remove(&oldest);
            self.has_older = true;
        }
    }

    /// Takes in a page of the history, newest first; `has_older` if there are more.
    pub fn load(&mut self, entries: Vec<HistoryEntry>, has_older: bool) {
        let seq = |entry: &HistoryEntry| entry.receipt.message_id.seq();
        let Some(oldest) = entries.last().map(seq) else { return };
        let newest_before = self.messages.keys().rfind(|seq| !self.told.contains(seq));
        if has_older && newest_before.is_some_and(|newest| *newest < oldest) {
            // There may be messages in between, which scrolling loads again.
            self.messages = self.messages.split_off(&oldest);
        }
        if self.messages.keys().next().is_none_or(|first| oldest <= *first) {
            self.has_older = has_older;
        }
        let untold = entries.into_iter().filter(|entry| !self.told.contains(&seq(entry)));
        self.messages.extend(untold.map(|entry| (seq(&entry), entry)));
    }

    /// Opens a conversation, which is given oldest first.
    pub fn open(&mut self, messages: Vec<HistoryEntry>) {
        let mut thread = Thread { messages, scrolled: 0 };
        // The stream may have told more in the meantime.
        self.told.iter().filter_map(|seq| self.messages.get(seq)).for_each(|entry| thread.put(entry));
        self.thread = Some(thread);
    }

    /// Does what a key means.
    pub fn press(&mut self, key: KeyEvent, page: usize) -> Option<Action> {
        self.notice = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(Action::Quit),
                KeyCode::Char('z') => Some(Action::Suspend),
                KeyCode::Char('u') => {
                    self.text_being_typed()?.clear();
                    None
                }
                _ => None,
            };
        }
        if self.typing.is_some() { self.type_key(key.code) } else { self.command(key.code, page) }
    }

    /// Adds pasted text to the line that is being typed.
    pub fn paste(&mut self, text: &str) {
        if let Some(typed) = self.text_being_typed() {
            typed.push_str(text);
        }
    }

    fn text_being_typed(&mut self) -> Option<&mut String> {
        match self.typing.as_mut()? {
            Typing::Filter => Some(&mut self.filter),
            Typing::Message(draft) => Some(&mut draft.text),
        }
    }

    fn type_key(&mut self, key: KeyCode) -> Option<Action> {
        match key {
            KeyCode::Char(letter) => self.text_being_typed()?.push(letter),
            KeyCode::Backspace => _ = self.text_being_typed()?.pop(),
            KeyCode::Esc if self.typing.take() == Some(Typing::Filter) => self.filter.clear(),
            KeyCode::Enter => match self.typing.take()? {
                Typing::Message(draft) if !draft.text.trim().is_empty() => return Some(Action::Send(draft)),
                _ => {}
            },
            _ => {}
        }
        None
    }

    fn command(&mut self, key: KeyCode, page: usize) -> Option<Action> {
        match key {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Esc if self.thread.is_some() => self.thread = None,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Tab | KeyCode::BackTab => {
                self.focus = if self.focus == Focus::Peers { Focus::Messages } else { Focus::Peers };
            }
            KeyCode::Char('/') => (self.thread, self.typing) = (None, Some(Typing::Filter)),
            KeyCode::Up | KeyCode::Char('k') => return self.go(-1),
            KeyCode::Down | KeyCode::Char('j') => return self.go(1),
            KeyCode::PageUp => return self.go(-page.cast_signed()),
            KeyCode::PageDown => return self.go(page.cast_signed()),
            KeyCode::Home | KeyCode::Char('g') => return self.go(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => return self.go(isize::MAX),
            KeyCode::Enter => return self.enter(),
            KeyCode::Char('s') => self.write_to_peer(),
            KeyCode::Char('a') => self.answer(),
            _ => {}
        }
        None
    }

    /// Moves the selection by so many rows, or the conversation by so many lines.
    fn go(&mut self, by: isize) -> Option<Action> {
        if let Some(thread) = &mut self.thread {
            let by = i32::try_from(by.clamp(-30_000, 30_000)).unwrap_or_default();
            thread.scrolled = u16::try_from(i32::from(thread.scrolled).saturating_add(by).max(0)).unwrap_or(u16::MAX);
            return None;
        }
        let moved =
            |from: Option<usize>, count: usize| from.map(|from| from.saturating_add_signed(by).min(count.saturating_sub(1)));
        if self.focus == Focus::Peers {
            let peers = self.peers();
            self.peer = moved(self.selected_peer(&peers), peers.len()).map(|at| peers[at].id.clone());
            return None;
        }
        let messages = self.messages();
        let (selected, count) = (self.selected_message(&messages), messages.len());
        let to = moved(selected, count);
        let seq = to.and_then(|at| messages.get(at)).map(|entry| entry.receipt.message_id.seq());
        // At the end the view follows the newest again.
        self.message = seq.filter(|_| to.is_some_and(|at| at + 1 < count));
        let oldest = self.messages.values().next().map(|entry| entry.receipt.message_id.clone());
        let wants_older = self.has_older && by < 0 && to.is_none_or(|at| at == 0);
        wants_older.then_some(Action::LoadBefore(oldest?))
    }

    fn enter(&mut self) -> Option<Action> {
        if self.thread.is_some() {
            return None;
        }
        if self.focus == Focus::Peers {
            let peers = self.peers();
            let name = self.selected_peer(&peers).map(|at| peers[at].name.clone());
            (self.filter, self.focus) = (name?, Focus::Messages);
            return None;
        }
        let messages = self.messages();
        self.selected_message(&messages).map(|at| Action::OpenThread(messages[at].receipt.message_id.clone()))
    }

    fn write_to_peer(&mut self) {
        let peers = self.peers();
        let draft = self.selected_peer(&peers).map(|at| Draft {
            to: peers[at].id.clone(),
            to_name: peers[at].name.clone(),
            reply_to: None,
            text: String::new(),
        });
        match draft {
            Some(draft) => self.write(draft),
            None => self.notice = Some((true, "there is no session to send to".to_owned())),
        }
    }

    /// Answers the selected message, or the last one of the conversation: its sender, or its recipient if you sent it.
    fn answer(&mut self) {
        let messages = self.messages();
        let entry = match &self.thread {
            Some(thread) => thread.messages.last(),
            None => self.selected_message(&messages).map(|at| messages[at]),
        };
        let Some(entry) = entry else { return };
        let receipt = &entry.receipt;
        let is_own = receipt.from.as_str() == CLI_SENDER;
        let (to, to_name) = if is_own { (&receipt.to, &receipt.to_name) } else { (&receipt.from, &entry.from_name) };
        // An answer names a question to you; a word to others stands by itself.
        let reply_to = (receipt.to.as_str() == CLI_SENDER).then(|| receipt.message_id.clone());
        let draft = Draft { to: to.clone(), to_name: to_name.clone(), reply_to, text: String::new() };
        self.write(draft);
    }

    fn write(&mut self, mut draft: Draft) {
        if let Some(unsent) = self.unsent.take_if(|unsent| unsent.to == draft.to) {
            draft.text = unsent.text;
        }
        self.typing = Some(Typing::Message(draft));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    fn message(state: &str) -> HistoryEntry {
        let (time, id) = ("2026-01-01T00:00:00.000Z", "m7-abcdef");
        from_value(json!({
            "messageId": id, "from": "aaaaaa", "fromName": "web", "to": "bbbbbb", "toName": "api", "state": state, "sentAt": time,
            "expiresAt": time, "text": "Which port?",
        }))
        .unwrap()
    }

    #[test]
    fn older_page_does_not_undo_what_the_stream_told() {
        let mut model = Model::default();
        model.hear(News::Event(Box::new(WatchEvent::Message(message("delivered")))));
        model.load(vec![message("queued")], false);
        model.open(vec![message("queued")]);
        let shown = [&model.messages()[0].receipt, &model.thread.as_ref().unwrap().messages[0].receipt]
            .map(|receipt| receipt.state.as_str());
        assert_eq!(shown, ["delivered"; 2]);
    }
}
