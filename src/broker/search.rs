//! Full-text search in the messages.

use super::{
    core::{Broker, Caller},
    history::page_size,
};
use crate::{
    db,
    mailbox::{history::Filter, search},
    wire::{self, Code, Error, Excerpt, Found, PeerId, Search, SearchPage},
};
use std::time::Duration;

/// How many results a request gets by default, and at most.
const DEFAULT_RESULTS: u32 = 20;
const MOST_RESULTS: u32 = 200;
/// How many words or phrases a query may have.
const MOST_WORDS: usize = 32;
/// How many messages one transaction reads into the index, or looks at to forget them.
const STEP: u32 = 5_000;
/// The pause between steps that nobody waits for.
const PAUSE: Duration = Duration::from_millis(20);

impl Broker {
    /// The messages with these words, best first. A peer finds its own; the user finds all. First reads what was accepted since
    /// the last search into the index.
    pub async fn search(&self, caller: &Caller, request: &Search) -> wire::Result<SearchPage> {
        let limit = page_size(request.limit, DEFAULT_RESULTS, MOST_RESULTS)?;
        let matching = matching(&request.words)?;
        let peers = self.parties(caller, request.peer.as_deref())?;
        let repo = request.repo.as_deref().map(|name| self.in_repo(name));
        let (since, until, state) = (request.since, request.before, request.state);
        let filter = Filter { peers, repo, since, until, state, ..Filter::default() };
        while self.read_into_index().await? {}
        let find = move |index: &db::Tx<'_>| search::find(index, &matching, &filter, limit);
        let shown = |(message, parts): (_, Vec<db::Part>)| {
            let excerpt = parts.into_iter().map(|(text, hit)| Excerpt { text, hit }).collect();
            Found { excerpt, entry: self.entry(message) }
        };
        Ok(SearchPage { messages: self.store.search(find).await?.into_iter().map(shown).collect() })
    }

    /// Brings the index up to date, and forgets the words of messages up to the place `removed`, where they are stored no more.
    pub(super) async fn maintain_index(&self, removed: i64) -> wire::Result<()> {
        let mut cursor = Some(0);
        while let Some(at) = cursor.filter(|at| *at < removed) {
            cursor = self.store.search(move |index| search::forget(index, at, STEP)).await?;
            tokio::time::sleep(PAUSE).await;
        }
        while self.read_into_index().await? {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// One step; returns whether there is more.
    async fn read_into_index(&self) -> wire::Result<bool> {
        Ok(self.store.search(|index| search::catch_up(index, STEP)).await?)
    }

    /// The peers whose repository has this name.
    fn in_repo(&self, name: &str) -> Vec<PeerId> {
        let roster = self.roster();
        let is_in = |row: &&db::PeerRow| row.git.as_ref().is_some_and(|git| git.repo == name);
        roster.peers.values().map(|peer| &peer.row).filter(is_in).map(|row| row.id.clone()).collect()
    }
}

/// The query in the language of FTS5: each word or "phrase" must occur; `word*` stands for its beginning.
fn matching(words: &str) -> wire::Result<String> {
    let refuse = |what: String| Error::new(Code::InvalidRequest, what).help("search for words, a \"phrase\", or a beginning*");
    let mut terms = Vec::new();
    // Every second piece stands between quotes.
    for (at, piece) in words.split('"').enumerate() {
        let in_quotes = at % 2 == 1;
        let pieces: Vec<&str> = if in_quotes { vec![piece] } else { piece.split_whitespace().collect() };
        for piece in pieces.into_iter().filter(|piece| piece.chars().any(char::is_alphanumeric)) {
            let (word, star) = match piece.strip_suffix('*').filter(|_| !in_quotes) {
                Some(word) => (word, "*"),
                None => (piece, ""),
            };
            terms.push(format!("\"{}\"{star}", word.replace('\0', " ")));
        }
    }
    match terms.len() {
        0 => Err(refuse("the search has no words".to_owned())),
        1..=MOST_WORDS => Ok(terms.join(" AND ")),
        count => Err(refuse(format!("the search has {count} words; at most {MOST_WORDS} are allowed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_a_query() {
        let cases = [
            ("port", "\"port\""),
            ("  which port ", "\"which\" AND \"port\""),
            ("\"which port\" now", "\"which port\" AND \"now\""),
            ("conf* -x NOT y:z", "\"conf\"* AND \"-x\" AND \"NOT\" AND \"y:z\""),
            ("an \"open end", "\"an\" AND \"open end\""),
        ];
        for (words, query) in cases {
            assert_eq!(matching(words).ok().as_deref(), Some(query), "{words}");
        }
        for words in ["", " ", "\"\"", "!?", "* \"-\""] {
            assert!(matching(words).is_err(), "{words}");
        }
    }
}
