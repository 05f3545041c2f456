//! One session through all of its processes: it calls tools, is killed in the middle of a call, and is resumed under its session id.

use super::{
    client::{Client, Route, let_in},
    load::{Load, Over, hesitate},
    view::{EVERYONE, Sent, View, cancelled_text, text},
};
use crate::support::{Broker, random::Random};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The scope of a broadcast: all sessions of the test, but not its scripts.
const ALL: &str = "@repo";

/// How a session is run, under its name.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub route: Route,
    /// It runs in a process of its own, as the child of a process called `claude`.
    pub under_claude: bool,
    /// It answers messages, which proves its channel or inbox.
    pub replies: bool,
}

pub struct Life<'a> {
    kind: Kind,
    broker: &'a Broker,
    directory: PathBuf,
    client: Client,
    random: Random,
    pub id: String,
    pub view: View,
    pub sent: Sent,
    number: u64,
}

/// A call of a tool.
struct Call {
    tool: &'static str,
    arguments: Value,
    /// The text of a message that it sends.
    text: Option<String>,
    /// The client cancels it.
    cancelled: bool,
}

impl Call {
    fn of(tool: &'static str, arguments: Value) -> Self {
        Self { tool, arguments, text: None, cancelled: false }
    }
}

impl<'a> Life<'a> {
    /// Starts the session in a folder of its name.
    pub fn start(kind: Kind, broker: &'a Broker, place: &Path, random: Random) -> Self {
        let directory = place.join(kind.name);
        fs::create_dir(&directory).unwrap();
        let client = kind.launch(broker, &directory);
        let (view, sent) = Default::default();
        let mut life = Self { kind, broker, directory, client, random, id: String::new(), view, sent, number: 0 };
        life.id = life.introduced();
        life.view.is_of(&life.id);
        life
    }

    /// Calls tools until the load is over.
    pub fn run(&mut self, ids: &[String], load: &Load) {
        let over = Over(load);
        while !load.is_over() {
            let call = self.choose(ids);
            if load.claims_session_kill() {
                self.perform(call, load, true);
                self.resume();
            } else {
                self.perform(call, load, false);
            }
        }
        drop(over);
    }

    /// Reads everything that waits for the session and lets it in.
    pub fn settle(&mut self, load: &Load) {
        self.read_frames(true);
        self.perform(Call::of("check_messages", json!({})), load, false);
        self.read_frames(true);
    }

    fn choose(&mut self, ids: &[String]) -> Call {
        match self.random.below(12) {
            0 => Call::of("check_messages", json!({})),
            1 => Call { cancelled: true, ..Call::of("check_messages", json!({"waitSeconds": 3_600})) },
            2 => Call::of("list_peers", json!({"scope": "machine"})),
            3 => self.message(ALL, EVERYONE),
            4 => {
                let mut ask = self.message_to_one(ids);
                ask.arguments["waitForReplySeconds"] = 1.into();
                ask
            }
            5 => {
                let to = self.anyone(ids);
                self.number += 1;
                let text = cancelled_text(&self.id, &to, self.number);
                let arguments = json!({"targetPeerId": to, "message": text, "waitForReplySeconds": 600});
                Call { text: Some(text), cancelled: true, ..Call::of("send_message", arguments) }
            }
            _ => self.message_to_one(ids),
        }
    }

    fn message_to_one(&mut self, ids: &[String]) -> Call {
        if self.kind.replies
            && let Some(shown) = self.view.last.clone()
            && ids.contains(&shown.from)
        {
            let mut reply = self.message(&shown.from, &shown.from);
            reply.arguments["replyTo"] = shown.id.into();
            return reply;
        }
        let to = self.anyone(ids);
        self.message(&to, &to)
    }

    /// Another session.
    fn anyone(&mut self, ids: &[String]) -> String {
        let others: Vec<&String> = ids.iter().filter(|id| **id != self.id).collect();
        others[self.random.below(others.len() as u64) as usize].clone()
    }

    fn message(&mut self, target: &str, to: &str) -> Call {
        self.number += 1;
        let text = text(&self.id, to, self.number);
        Call { text: Some(text.clone()), ..Call::of("send_message", json!({"targetPeerId": target, "message": text})) }
    }

    /// Makes a call and waits for its answer. If `dies`, the session is killed meanwhile, and what it had written is read to the end.
    fn perform(&mut self, call: Call, load: &Load, dies: bool) {
        let session = self.client.session();
        let id = session.ask("tools/call", json!({"name": call.tool, "arguments": call.arguments}));
        load.change(|now| now.begun += 1);
        if call.cancelled {
            hesitate(&mut self.random);
            let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
            self.client.session().say(&cancel);
        }
        if dies {
            hesitate(&mut self.random);
            self.kill();
        }
        // A cancelled call is not answered, so the answer to a ping ends the wait.
        let last = if call.cancelled && !dies { self.client.session().ask("ping", json!({})) } else { id };
        let answer = self.read_to(id, if dies { None } else { Some(last) });
        load.change(|now| now.ended += 1);
        if let Some(result) = &answer {
            self.check_error(result);
        }
        if let Some(text) = call.text {
            self.sent.book(text, answer.as_ref());
        }
    }

    /// Reads the output to the answer to `last`, or else to its end. Returns the result of the call `id`, if it was among it.
    fn read_to(&mut self, id: u64, last: Option<u64>) -> Option<Value> {
        let mut result = None;
        while let Some(line) = self.client.session().next_line() {
            self.read_frames(false);
            self.view.line(&line);
            if line["id"] == id {
                assert!(line.get("error").is_none(), "{line}");
                result = Some(line["result"].clone());
            }
            if last.is_some_and(|last| line["id"] == last) {
                return result;
            }
        }
        assert!(last.is_none(), "{}: its server ended by itself: {}", self.kind.name, self.client.session().log());
        result
    }

    /// Only the broker's absence is a reason to fail.
    fn check_error(&self, result: &Value) {
        if result["isError"] == true {
            let words = result["content"][0]["text"].as_str().unwrap();
            assert!(words.contains("`claude-peers start`"), "an error that is not about the broker's absence: {words}");
        }
    }

    /// Reads new frames. The client lets most of them in, or `all`.
    fn read_frames(&mut self, all: bool) {
        let Client::Inbox(agent) = &self.client else { return };
        for frame in agent.frames() {
            self.view.frame(&frame);
            let is_held = frame.content.contains(" from-mode=");
            let lets_in = all || self.random.below(if is_held { 2 } else { 16 }) > 0;
            if lets_in {
                let_in(agent, self.kind.route, self.kind.name, &frame);
            }
        }
    }

    /// Kills the server, or the process above it, which takes the server with it.
    fn kill(&mut self) {
        let session = self.client.session();
        let above = self.kind.under_claude && self.random.below(2) == 0;
        let pid = if self.kind.has_agent() && !above { session.server_pid() } else { session.pid() };
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    }

    /// Resumes the session in a new process. It must be the same peer.
    fn resume(&mut self) {
        self.client.session().wait();
        self.read_frames(false);
        self.client = self.kind.launch(self.broker, &self.directory);
        let pushes = self.client.session().pushes_before();
        pushes.iter().for_each(|push| self.view.push(push));
        let id = self.introduced();
        assert_eq!(id, self.id, "{}: the resumed session has another mailbox", self.kind.name);
    }

    /// Waits until the broker knows the session; returns its id.
    fn introduced(&mut self) -> String {
        loop {
            let session = self.client.session();
            let id = session.ask("tools/call", json!({"name": "list_peers", "arguments": {"scope": "machine"}}));
            let result = self.read_to(id, Some(id)).unwrap();
            self.check_error(&result);
            if let Some(id) = result["structuredContent"]["self"]["id"].as_str() {
                return id.to_owned();
            }
        }
    }
}

impl Kind {
    fn launch(self, broker: &Broker, directory: &Path) -> Client {
        Client::launch(self.route, self.under_claude, broker, directory, self.name)
    }

    fn has_agent(self) -> bool {
        self.under_claude || matches!(self.route, Route::Inbox | Route::HeldInbox)
    }
}
