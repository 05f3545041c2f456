//! Two machines: each has its own broker and its own link.

use crate::{
    hub::Hub,
    support::{Broker, eventually},
};
use serde_json::{Value, json};
use std::{
    fs,
    process::{Child, Command, Stdio},
};

/// The program under test.
pub const LINK: &str = env!("CARGO_BIN_EXE_claude-peers-link");

/// A machine. Dropping it kills its link and its broker.
pub struct Machine {
    pub name: &'static str,
    pub broker: Broker,
    link: Option<Child>,
}

impl Machine {
    /// A machine with a running link.
    pub fn linked(name: &'static str, hub: &Hub) -> Self {
        Self::linked_with(name, hub, &[])
    }

    /// The same, its broker with these settings.
    pub fn linked_with(name: &'static str, hub: &Hub, settings: &[(&str, &str)]) -> Self {
        let mut machine = Self { name, broker: Broker::with(settings), link: None };
        hub.join(name, &machine.broker);
        machine.link();
        machine
    }

    /// A machine that has joined already, with a running link.
    #[allow(dead_code, reason = "not for the benchmark")]
    pub fn joined(name: &'static str, broker: Broker) -> Self {
        let mut machine = Self { name, broker, link: None };
        machine.link();
        machine
    }

    /// Starts its link.
    pub fn link(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.broker.folder().join("link.log")).unwrap();
        let mut link = Command::new(LINK);
        link.env_clear().envs(self.broker.env()).env("HOME", self.broker.folder()).env("CLAUDE_PEERS_LOG", "debug");
        link.arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.link = Some(link.spawn().unwrap());
    }

    /// Kills its link with SIGKILL.
    pub fn kill_link(&mut self) {
        if let Some(mut link) = self.link.take() {
            link.kill().unwrap();
            link.wait().unwrap();
        }
    }

    /// The process id of its link.
    pub fn link_pid(&self) -> u32 {
        self.link.as_ref().unwrap().id()
    }

    /// What its link has logged.
    pub fn link_log(&self) -> String {
        fs::read_to_string(self.broker.folder().join("link.log")).unwrap_or_default()
    }

    /// Waits until its link has logged these words.
    pub fn link_says(&self, words: &str) {
        eventually(&format!("the link of {} says {words:?}", self.name), || self.link_log().contains(words).then_some(()));
    }

    /// The peers of all machines that can be reached.
    pub fn everywhere(&self) -> Vec<Value> {
        self.broker.http().get("/v1/peers?scope=everywhere").json()["peers"].as_array().unwrap().clone()
    }

    /// Waits until a peer of this name can be reached.
    pub fn sees(&self, name: &str) -> Value {
        eventually(&format!("{} sees {name}", self.name), || self.everywhere().into_iter().find(|peer| peer["name"] == name))
    }

    /// Waits until no peer of this name can be reached.
    pub fn sees_no_more(&self, name: &str) {
        eventually(&format!("{} does not see {name}", self.name), || {
            self.everywhere().iter().all(|peer| peer["name"] != name).then_some(())
        });
    }

    /// Sends as the user; returns the receipt.
    pub fn send(&self, to: &str, text: &str) -> Value {
        self.broker.http().post("/v1/send", &json!({"to": to, "text": text})).json()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill_link();
        if std::thread::panicking() {
            eprintln!("--- the link of {} ---\n{}--- end of log ---", self.name, self.link_log());
        }
    }
}
