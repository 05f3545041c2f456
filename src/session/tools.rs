//! The handlers of the four tools. A failed call returns a result with an error in plain words,
//! never a protocol error.

use super::{
    acknowledge::Handover,
    link::{AT_ONCE, Link},
    listing::Listing,
    mail::{CHECK_BYTES, Mail, Mailbox},
    words,
};
use crate::{
    agents::shown::{self, Shown},
    platform::random,
    wire::{
        Asked, Code, Error, Inbound, MessageId, MessageState, NotSent, Peers, Receipt, Recipient, Result, Route, Scope,
        SendRequest, Sent, SetSummary, Status, Summary, SummarySource,
    },
};
use rmcp::model::JsonObject;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Longest wait of `check_messages`.
pub const MAX_WAIT: u64 = 3_600;
/// Longest wait of `send_message`.
pub const MAX_WAIT_FOR_REPLY: u64 = 600;

pub struct Answer {
    /// The structured result, an object. Clients that support it show their model only this.
    pub json: Value,
    /// The same result in a readable form.
    pub text: String,
    pub handover: Option<Handover>,
    /// Whether waiting mail may be added.
    pub takes_mail: bool,
}

impl Answer {
    fn new(json: Value, text: String) -> Self {
        Self { json, text, handover: None, takes_mail: true }
    }
}

pub struct Tools {
    pub link: Arc<Link>,
    pub mail: Arc<Mailbox>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListPeers {
    scope: Option<String>,
    /// Not published: the note on a shortened list names it.
    offset: Option<Whole>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SendMessage {
    #[serde(alias = "to_id", alias = "to", alias = "peer_id")]
    target_peer_id: Option<String>,
    #[serde(alias = "text")]
    message: Option<String>,
    reply_to: Option<String>,
    wait_for_reply_seconds: Option<Whole>,
    /// Not published: the warning that a peer is unattended names it.
    #[serde(default)]
    wake: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SummaryText {
    summary: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CheckMessages {
    wait_seconds: Option<Whole>,
    message_id: Option<String>,
    offset: Option<Whole>,
}

/// A whole number, which models write as `30`, `30.0` and `"30"`.
struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let whole = |number: f64| (number >= 0.0 && number.fract() == 0.0).then_some(number as u64);
        let number = match Value::deserialize(deserializer)? {
            Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(whole)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let wrong = || D::Error::custom("waitSeconds and offset are whole numbers, 0 or more, as is waitForReplySeconds");
        number.map(Self).ok_or_else(wrong)
    }
}

impl Whole {
    fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Tools {
    /// How long a call waits: at most `most`, and no longer than its client would.
    fn wait(&self, seconds: Option<Whole>, most: u64) -> Duration {
        let wait = Duration::from_secs(seconds.map_or(0, |seconds| seconds.0.min(most)));
        self.link.client().longest_wait().map_or(wait, |longest| wait.min(longest))
    }

    /// Calls the tool `name`; none if there is no such tool. The session's mail goes to a caller that `takes_mail`. A wait ends early
    /// when `stop` is cancelled.
    pub async fn call(
        &self,
        name: &str,
        arguments: JsonObject,
        takes_mail: bool,
        stop: impl Future<Output = ()>,
    ) -> Option<Result<Answer>> {
        if !takes_mail && (name == "check_messages" || arguments.contains_key("waitForReplySeconds")) {
            return Some(Err(for_others()));
        }
        Some(match name {
            "list_peers" => self.list_peers(arguments).await,
            "send_message" => self.send_message(arguments, stop).await,
            "set_summary" => self.set_summary(arguments).await,
            "check_messages" => self.check_messages(arguments, stop).await,
            _ => return None,
        })
    }

    async fn list_peers(&self, arguments: JsonObject) -> Result<Answer> {
        let ListPeers { scope, offset } = parse("list_peers", arguments)?;
        let scope: Scope =
            required("list_peers", "scope", "\"machine\", \"directory\", \"repo\" or \"everywhere\"", scope)?.parse()?;
        let peers: Peers = self.link.get(&format!("/v1/peers?scope={}", scope.as_str()), AT_ONCE).await?;
        let listing = Listing::new(peers, offset.map_or(0, Whole::index));
        let mut json = json!(listing.list);
        if let Some(note) = &listing.note {
            json["note"] = note.as_str().into();
        }
        Ok(Answer { takes_mail: listing.leaves_room, ..Answer::new(json, listing.readable(scope)) })
    }

    async fn send_message(&self, arguments: JsonObject, stop: impl Future<Output = ()>) -> Result<Answer> {
        let SendMessage { target_peer_id, message, reply_to, wait_for_reply_seconds, wake } = parse("send_message", arguments)?;
        let to = required("send_message", "targetPeerId", "the id or name of a peer from list_peers", target_peer_id)?;
        let text = required("send_message", "message", "the text to send", message)?;
        let to: Recipient = to.parse()?;
        let wait = self.wait(wait_for_reply_seconds, MAX_WAIT_FOR_REPLY);
        if matches!(to, Recipient::Everyone(_)) && !wait.is_zero() {
            return Err(wrong("send_message", "waitForReplySeconds is for a question to one peer"));
        }
        // All attempts within this call share one key, so they make one message.
        let send = SendRequest { to: to.to_string(), text, reply_to, key: Some(random::token(32)), cwd: None, wake };
        match self.link.post("/v1/send", &send, AT_ONCE).await? {
            Sent::One(sent) if !wait.is_zero() => Ok(self.ask(&sent, wait, stop).await),
            Sent::One(sent) => Ok(Answer::new(receipt(&sent), words::sent(&sent))),
            Sent::Everyone(sent) => {
                let refused = |to: &NotSent| json!({"to": {"id": to.to, "name": to.to_name}, "error": to.error});
                let json = json!({
                    "success": sent.refused.is_empty(),
                    "receipts": sent.receipts.iter().map(receipt).collect::<Vec<_>>(),
                    "refused": sent.refused.iter().map(refused).collect::<Vec<_>>(),
                });
                Ok(Answer::new(json, words::broadcast(&sent, &to)))
            }
        }
    }

    /// Waits for the answer to `sent`. Any other message also ends the wait, since it may be a question that must be answered
    /// first. The message is already accepted, so a failed wait is no error.
    async fn ask(&self, sent: &Receipt, wait: Duration, stop: impl Future<Output = ()>) -> Answer {
        let id = &sent.message_id;
        let stop = async {
            tokio::select! {
                () = stop => {}
                () = self.no_answer_can_come(id, wait) => {}
            }
        };
        let is_answer = |message: &Inbound| message.reply_to.as_ref() == Some(id);
        // Shows as much of the answer as one result holds.
        let show = |message| if is_answer(&message) { Shown::part(message, 0) } else { Shown::brief(message) };
        let mut json = receipt(sent);
        let Mail { messages, more, handover } = match self.mail.receive((Route::ToolResult, CHECK_BYTES), wait, stop, show).await
        {
            Ok(mail) => mail,
            Err(error) => {
                let text = format!("{} The wait for an answer failed: {error}", words::sent(sent));
                json["note"] = text.as_str().into();
                return Answer::new(json, text);
            }
        };
        let mut text = shown::messages(&messages, more);
        let (answers, mut others): (Vec<_>, Vec<_>) = messages.into_iter().partition(|shown| is_answer(&shown.message));
        let mut answers = answers.into_iter();
        let answer = answers.next();
        json["answered"] = answer.is_some().into();
        if let Some(answer) = answer {
            json["answer"] = json!(answer);
            json["notice"] = shown::NOTICE.into();
            json["state"] = json!(MessageState::Delivered); // an answer proves that the question was read
            json.as_object_mut().and_then(|json| json.remove("warning"));
        } else if others.is_empty() {
            let known: Result<Asked> = self.link.get(&format!("/v1/messages/{id}/reply"), AT_ONCE).await;
            if let Ok(known) = &known {
                json["state"] = json!(known.question.state);
            }
            text = words::unanswered(sent, known.as_ref(), self.link.has_door());
            json["note"] = text.as_str().into();
        } else {
            let note = words::interrupted(sent, self.link.has_door());
            text = format!("{note}\n\n{text}");
            json["note"] = note.into();
        }
        others.splice(..0, answers);
        if !others.is_empty() {
            put(&mut json, "incomingMessages", &others, 0);
        }
        Answer { json, text, handover: Some(handover), takes_mail: false }
    }

    /// Resolves when the recipient of this question is gone, or the question has expired.
    async fn no_answer_can_come(&self, id: &MessageId, wait: Duration) {
        let path = format!("/v1/messages/{id}/reply?waitSeconds={}", wait.as_secs());
        let is_lost = |Asked { question, recipient, answer }: Asked| {
            answer.is_none() && (recipient == Status::Gone || question.state == MessageState::Expired)
        };
        if !self.link.get(&path, wait).await.is_ok_and(is_lost) {
            std::future::pending().await // the answer is on its way, or the time is up
        }
    }

    async fn set_summary(&self, arguments: JsonObject) -> Result<Answer> {
        let SummaryText { summary } = parse("set_summary", arguments)?;
        let summary = required("set_summary", "summary", "one or two sentences", summary)?;
        let set = SetSummary { summary, source: SummarySource::Session };
        let Summary { summary, .. } = self.link.post("/v1/set-summary", &set, AT_ONCE).await?;
        Ok(Answer::new(json!({"summary": summary}), format!("Peers now see: {summary}")))
    }

    async fn check_messages(&self, arguments: JsonObject, stop: impl Future<Output = ()>) -> Result<Answer> {
        let CheckMessages { wait_seconds, message_id, offset } = parse("check_messages", arguments)?;
        if let Some(id) = message_id {
            return self.read_message(&id.parse()?, offset.map_or(0, Whole::index)).await;
        }
        if offset.is_some() {
            return Err(wrong("check_messages", "offset says where to read on in one message, so it needs messageId, too"));
        }
        let (wait, show) = (self.wait(wait_seconds, MAX_WAIT), |message| Shown::part(message, 0));
        let Mail { messages, more, handover } = self.mail.receive((Route::CheckMessages, CHECK_BYTES), wait, stop, show).await?;
        let mut json = json!({});
        put(&mut json, "messages", &messages, more);
        let text = if messages.is_empty() { "No messages.".to_owned() } else { shown::messages(&messages, more) };
        Ok(Answer { json, text, handover: Some(handover), takes_mail: false })
    }

    async fn read_message(&self, id: &MessageId, offset: usize) -> Result<Answer> {
        let (shown, handover) = self.mail.read(id, offset).await?;
        if offset > 0 && shown.message.text.is_empty() {
            return Err(wrong("check_messages", format!("message {id} ends before offset {offset}")));
        }
        let text = shown.readable();
        let json = json!({"messages": [shown], "notice": shown::NOTICE});
        Ok(Answer { handover, ..Answer::new(json, text) })
    }
}

/// Adds messages to a result, with their notice and the number that still wait.
pub fn put(json: &mut Value, key: &str, messages: &[Shown], more: u32) {
    json[key] = json!(messages);
    if !messages.is_empty() {
        json["notice"] = shown::NOTICE.into();
    }
    if more > 0 {
        json["more"] = more.into();
    }
}

/// A receipt in the form that the model gets.
fn receipt(sent: &Receipt) -> Value {
    let mut json = json!({
        "success": true, "sentAt": sent.sent_at, "messageId": sent.message_id, "state": sent.state,
        "to": {"id": sent.to, "name": sent.to_name},
    });
    if let Some(warning) = &sent.warning {
        json["warning"] = warning.as_str().into();
    }
    json
}

fn parse<T: DeserializeOwned>(tool: &str, arguments: JsonObject) -> Result<T> {
    serde_json::from_value(Value::Object(arguments)).map_err(|error| wrong(tool, error))
}

fn required<T>(tool: &str, parameter: &str, what: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| wrong(tool, format!("the parameter {parameter} is missing: {what}")))
}

/// The error of a call that would take mail of another session.
fn for_others() -> Error {
    Error::new(Code::Forbidden, "messages go to the session itself, not to its subagents")
        .help("send without waitForReplySeconds; the session that started this agent gets the answer")
}

fn wrong(tool: &str, what: impl std::fmt::Display) -> Error {
    Error::new(Code::InvalidRequest, format!("{tool}: {what}")).help("call it again with the parameters of its schema")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::link::Opener;

    #[test]
    fn waits_end_before_the_clients_patience() {
        for (client, seconds, most, waits) in [
            ("claude-code", 5_000, MAX_WAIT, 3_600),
            ("@cline/core", 5_000, MAX_WAIT, 50),
            ("mcp", 600, MAX_WAIT_FOR_REPLY, 50),
            ("opencode", 600, MAX_WAIT_FOR_REPLY, 50),
            ("codex-mcp-client", 600, MAX_WAIT_FOR_REPLY, 120),
            ("some-new-client", 600, MAX_WAIT_FOR_REPLY, 50),
            ("some-new-client", 7, MAX_WAIT_FOR_REPLY, 7),
        ] {
            let link = Arc::new(Link::default());
            link.opener.set(Opener::new(client, String::new())).expect("not set yet");
            let mail = Arc::new(Mailbox::new(link.clone(), Arc::default()));
            let wait = Tools { link, mail }.wait(Some(Whole(seconds)), most);
            assert_eq!(wait, Duration::from_secs(waits), "{client}");
        }
    }
}
