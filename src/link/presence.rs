//! Who is on which machine. Each machine says every few seconds that it is there, with the version of its list of sessions. Who does
//! not have that version asks for the list, and gets it sealed. A machine that is not heard is away.
//!
//! The hub sees who is there, but not which sessions. It can hide a machine, or claim that one is still there.

use super::{
    ends::{Here, Link, There},
    retry::PAUSE,
    seal::{Content, Presence},
    subject::{self, ALL_ALIVE},
};
use crate::{
    platform::random,
    wire::{self, Announce, AnnouncedPeer, Done, MachineName, Present, text::printable_line},
};
use async_nats::Message;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often a machine says that it is there. The brokers forget a machine after four times as long.
const INTERVAL: Duration = Duration::from_secs(5);
/// The version of a machine that leaves.
const GONE: &str = "gone";
/// The length of versions and questions: nobody guesses one.
const WORD: usize = 24;
/// The longest question that is answered.
const LONGEST_WORD: usize = 64;

impl Link {
    /// Says at intervals that this machine is there.
    pub(super) async fn say_who_is_here(&self) {
        loop {
            if let Err(error) = self.look_who_is_here().await {
                tracing::warn!(code = %error.code, "the broker: {}", error.message);
            }
            let version = self.presences.here.borrow().as_ref().map(|here| here.version.clone());
            if let Some(version) = version {
                self.publish(subject::alive(&self.seal.machine), version.into_bytes()).await;
            }
            sleep(INTERVAL).await;
        }
    }

    async fn look_who_is_here(&self) -> wire::Result<()> {
        let Present { peers } = self.broker.get("/v1/gateway/peers", None).await?;
        self.presences.here.send_if_modified(|here| {
            let is_new = here.as_ref().is_none_or(|here| here.peers != peers);
            if is_new {
                *here = Some(Here { version: random::token(WORD), peers });
            }
            is_new
        });
        Ok(())
    }

    pub(super) async fn answer_who_is_here(&self) {
        let mut here = self.presences.here.subscribe();
        if here.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let mut questions = self.subscribe(subject::asks_for(&self.seal.machine)).await;
        while let Some(message) = questions.next().await {
            // The answer repeats the question, so that of another program may be huge.
            let from = subject::publisher(&message.subject).filter(|_| message.payload.len() <= LONGEST_WORD);
            let Some(from) = from else { continue };
            let Ok(question) = String::from_utf8(message.payload.to_vec()) else { continue };
            let list = here.borrow().clone();
            let (Some(Here { version, peers }), Some(member)) = (list, self.member(&from).await) else { continue };
            match self.seal.seal(&member, &Content::Presence(Presence { question, version, peers })) {
                Ok(sealed) => self.publish(subject::peers(&self.seal.machine, &from), sealed).await,
                Err(error) => tracing::error!("telling {from} who is here: {}", error.message),
            }
        }
    }

    /// Learns who is on the other machines, and tells the broker.
    pub(super) async fn learn_who_is_there(&self) {
        let mut alive = self.subscribe(ALL_ALIVE.to_owned()).await;
        let mut lists = self.subscribe(subject::peers_for(&self.seal.machine)).await;
        let (mut state, mut directory) = (self.hub.state.clone(), self.directory.subscribe());
        self.ask_all().await;
        loop {
            tokio::select! {
                message = alive.next() => match message {
                    Some(message) => self.hear(&message).await,
                    None => return,
                },
                message = lists.next() => match message {
                    Some(message) => self.hear_list(&message).await,
                    None => return,
                },
                _ = state.changed() => self.ask_all().await,
                _ = directory.changed() => {
                    self.forget_strangers().await;
                    self.ask_all().await;
                }
            }
        }
    }

    async fn ask_all(&self) {
        if !self.hub.state.borrow().is_connected() {
            return;
        }
        let directory = self.directory.borrow().clone();
        for member in directory.machines.iter().filter(|member| member.name != self.seal.machine) {
            self.ask(&member.name).await;
        }
    }

    async fn ask(&self, machine: &MachineName) {
        let question = random::token(WORD);
        self.presences.there().entry(machine.clone()).or_default().question = Some(question.clone());
        self.publish(subject::ask(&self.seal.machine, machine), question.into_bytes()).await;
    }

    /// Hears that a machine is there.
    async fn hear(&self, message: &Message) {
        let known = self.directory.borrow().clone();
        let from = subject::publisher(&message.subject).filter(|from| *from != self.seal.machine && known.get(from).is_some());
        let Some(from) = from else { return };
        if *message.payload == *GONE.as_bytes() {
            self.presences.there().remove(&from);
            return self.announce(from, Vec::new()).await;
        }
        let list = self.presences.there().get(&from).and_then(|there| there.list.clone());
        match list.filter(|list| *message.payload == *list.version.as_bytes()) {
            Some(list) => self.announce(from, list.peers).await,
            None => self.ask(&from).await,
        }
    }

    /// Hears a machine's answer.
    async fn hear_list(&self, message: &Message) {
        let Some(from) = subject::publisher(&message.subject) else { return };
        let Presence { question, version, peers } = match self.open(&from, &message.payload).await {
            Ok(Content::Presence(presence)) => presence,
            Ok(Content::Letter(_)) => return tracing::error!("{from} has sent a letter as its list of sessions"),
            Err(error) => return tracing::error!("who is on {from}: {}", printable_line(&error.message)),
        };
        {
            let mut machines = self.presences.there();
            let there = machines.entry(from.clone()).or_default();
            if there.question.as_ref() != Some(&question) {
                return tracing::debug!("an answer of {from} to another question");
            }
            *there = There { list: Some(Here { version, peers: peers.clone() }), question: None };
        }
        self.announce(from, peers).await;
    }

    /// Machines that are in the directory no more are gone.
    async fn forget_strangers(&self) {
        let directory = self.directory.borrow().clone();
        let strangers: Vec<MachineName> =
            self.presences.there().keys().filter(|machine| directory.get(machine).is_none()).cloned().collect();
        for machine in strangers {
            self.presences.there().remove(&machine);
            self.announce(machine, Vec::new()).await;
        }
    }

    async fn announce(&self, machine: MachineName, peers: Vec<AnnouncedPeer>) {
        let announce = Announce { machine, peers };
        if let Err(error) = self.broker.post::<Done>("/v1/gateway/announce", None, &announce).await {
            tracing::warn!(code = %error.code, "who is on {}: {}", announce.machine, printable_line(&error.message));
        }
    }

    /// Tells the other machines that nobody can be reached here any more.
    pub(super) async fn leave(&self) {
        self.publish(subject::alive(&self.seal.machine), GONE.into()).await;
        if !matches!(timeout(PAUSE, self.hub.client.flush()).await, Ok(Ok(()))) {
            tracing::debug!("the hub did not hear that this machine leaves");
        }
    }

    async fn publish(&self, subject: String, payload: Vec<u8>) {
        if let Err(error) = self.hub.client.publish(subject, payload.into()).await {
            tracing::warn!("telling the other machines who is here: {error}");
        }
    }
}
