//! `claude-peers hook gemini`, which Gemini CLI runs around tool calls and turns: it puts messages beside results and prompts.
//!
//! Promises: it ends with exit code 0. It prints nothing if no message waits or the broker is away, and never waits for the broker
//! longer than [`PATIENCE`].
//!
//! It takes messages under a lease and prints them. Gemini CLI may still drop what a hook prints, for example if the user interrupts the
//! turn, and takes a turn back that the user cancels. But it writes the conversation into the session's transcript. So the next run of the
//! hook looks there, and tells the broker which messages the model was given: those that an answer follows. When a turn begins or ends, the transcript is complete: the other messages that hooks have
//! taken wait again, as possible repeats.
//!
//! If the user has opted in to have an idle session woken, and no doorbell rings for the session, it asks the model to start one
//! ([`super::doorbell`]).

use super::doorbell;
use crate::{
    agents::{
        broker,
        names::GEMINI,
        shown::{self, Shown},
    },
    platform::{files, process, random},
    wire::{Acknowledge, Acknowledged, HOOK_LEASE, Hook, Hooked, MessageId, Outcome, PROCESS_SCHEME, Route, Take, Taken},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The word for this hook on our command line.
pub const HOOK: &str = "gemini";
/// A tool has ended. Messages go beside its result.
pub const AFTER_TOOL: &str = "AfterTool";
/// A turn begins. Messages go beside the prompt.
pub const BEFORE_AGENT: &str = "BeforeAgent";
/// A tool is about to run. If it is ours, it may wait for messages, which come only after what was shown before is known to be shown.
pub const BEFORE_TOOL: &str = "BeforeTool";
/// A turn has ended.
pub const AFTER_AGENT: &str = "AfterAgent";

/// How long the broker may take for everything. It takes a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most bytes of text in one hand-over.
const MOST_BYTES: u32 = 24 * 1024;
/// How much of the end of a transcript is read, in bytes: more than the hooks of one turn add.
const LONGEST_READ: u64 = 4 * 1024 * 1024;
/// Stands before what a hook has printed. Gemini CLI escapes such brackets in the rest.
const MARK: &str = "<hook_context>";
/// Length of the random part of a lease.
const LEASE_LENGTH: usize = 24;

#[derive(Deserialize)]
struct Input {
    session_id: String,
    hook_event_name: String,
    /// Empty if the session is not recorded.
    transcript_path: PathBuf,
    /// What the tool was called with, if a tool has ended.
    #[serde(default)]
    tool_input: Value,
}

/// Runs the hook. The session goes on even if this fails.
pub fn run() {
    let mut from = BufReader::new(io::stdin().lock());
    let input = serde_json::from_reader::<_, Input>(&mut from);
    _ = io::copy(&mut from, &mut io::sink()); // Gemini CLI must find a reader
    // If the broker is away or refuses, messages come with a later result or prompt.
    if let (Ok(input), Some(agent)) = (input, process::parent()) {
        _ = react(&input, agent, Instant::now() + PATIENCE);
    }
}

fn react(input: &Input, agent: u32, until: Instant) -> io::Result<()> {
    let session = &*format!("{PROCESS_SCHEME} {agent}");
    let (event, transcript) = (&*input.hook_event_name, &input.transcript_path);
    if transcript.as_os_str().is_empty() {
        return Ok(()); // nothing would prove what was shown
    }
    let is_complete = [BEFORE_AGENT, AFTER_AGENT].contains(&event);
    let turn = turn_in(transcript)?;
    let may_ask = match event {
        BEFORE_AGENT => true,
        AFTER_TOOL => turn.asked <= turn.started && !doorbell::is_started_by(&input.tool_input),
        _ => false,
    };
    let doorbell = if may_ask { doorbell::wanted(agent) } else { None };
    let mut asks = None;
    if is_complete || !turn.messages.is_empty() || doorbell.is_some() {
        let session_id = Some(format!("{}:{}", GEMINI.program, input.session_id));
        let messages = turn.messages;
        let hook =
            Hook { event: event.to_owned(), problem: None, session_id, cwd: None, permission_mode: None, messages, is_complete };
        let hooked: Hooked = broker::ask(session, "/v1/hook", &hook, until)?;
        asks = doorbell.filter(|_| !hooked.has_doorbell);
    }
    if [BEFORE_AGENT, AFTER_TOOL].contains(&event) { bring(event, session, asks, until) } else { Ok(()) }
}

/// Prints the messages that wait, and what `asks` for a doorbell, for the model.
fn bring(event: &str, session: &str, asks: Option<String>, until: Instant) -> io::Result<()> {
    let lease = format!("{HOOK_LEASE}{}", random::token(LEASE_LENGTH));
    let (route, max_bytes) = (Route::ToolResult, Some(MOST_BYTES));
    let take = Take { lease: lease.clone(), route, max_bytes, wait_seconds: None, idle: false, inbound: None };
    let taken: Taken = broker::ask(session, "/v1/take", &take, until)?;
    let shown: Vec<Shown> = taken.messages.into_iter().map(Shown::brief).collect();
    let messages = (!shown.is_empty()).then(|| shown::frame_with_notice(&shown));
    let text = messages.into_iter().chain(asks).collect::<Vec<_>>().join("\n\n");
    if text.is_empty() {
        return Ok(());
    }
    let output = json!({"hookSpecificOutput": {"hookEventName": event, "additionalContext": text}, "suppressOutput": true});
    writeln!(io::stdout(), "{output}")?;
    // The transcript proves the messages that were shown whole. The others wait for `check_messages`.
    let messages: Vec<_> = shown.iter().map(|shown| shown.became(Outcome::Delivered)).collect();
    let mut messages: Vec<_> = messages.into_iter().filter(|message| message.outcome == Outcome::Announced).collect();
    if messages.is_empty() {
        return Ok(());
    }
    messages.iter_mut().for_each(|message| message.lease = Some(lease.clone()));
    broker::ask::<Acknowledged>(session, "/v1/acknowledge", &Acknowledge { route, messages }, until).map(drop)
}

/// What the transcript shows of a turn.
#[derive(Debug, Default, PartialEq, Eq)]
struct Turn {
    /// The messages from our hooks.
    messages: Vec<MessageId>,
    /// How often the model was asked to start a doorbell.
    asked: usize,
    /// How often it has started one.
    started: usize,
}

/// The present turn, by the session's transcript: a line of JSON for each step, in order.
fn turn_in(transcript: &Path) -> io::Result<Turn> {
    let mut text = Vec::new();
    match files::open(transcript) {
        Ok(mut file) => {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LONGEST_READ)))?;
            file.take(LONGEST_READ).read_to_end(&mut text)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {} // before the first prompt
        Err(error) => return Err(error),
    }
    Ok(last_turn(&text))
}

fn last_turn(transcript: &[u8]) -> Turn {
    let mut turn = Turn::default();
    let mut answers = None;
    for line in transcript.split(|byte| *byte == b'\n').rev() {
        let Ok(line) = serde_json::from_slice::<Value>(line) else { continue };
        let whole = line["$set"]["messages"].as_array(); // a cancelled turn is taken back
        let mut steps = whole.into_iter().flatten().rev().chain(whole.is_none().then_some(&line));
        if steps.any(|step| read_step(step, &mut answers, &mut turn)) || whole.is_some() {
            break;
        }
    }
    turn.messages.sort_unstable();
    turn.messages.dedup();
    turn
}

/// Reads a step, of which the later ones are read already. `answers`: the answer that was read last. Returns whether it is the prompt.
///
/// A request that is cancelled or fails leaves its texts in no conversation. So only a later answer proves that the model was given them.
fn read_step(step: &Value, answers: &mut Option<Value>, turn: &mut Turn) -> bool {
    let is_prompt = step["type"] == "user";
    if is_prompt || step["type"] == "gemini" {
        let is_answered = answers.as_ref().is_some_and(|answer| *answer != step["id"]);
        let mut found = Turn::default();
        collect(if is_prompt { &step["content"] } else { &step["toolCalls"] }, &mut found);
        let calls = step["toolCalls"].as_array().into_iter().flatten();
        turn.started += calls.filter(|call| doorbell::is_started_by(&call["args"])).count();
        turn.asked += found.asked;
        if is_answered {
            turn.messages.append(&mut found.messages);
        }
        *answers = Some(step["id"].clone());
    }
    is_prompt
}

/// Collects what is behind our mark in all texts of this value. A message's id begins a line there, which no line of a message's text does.
fn collect(value: &Value, turn: &mut Turn) {
    match value {
        Value::String(text) => {
            let context = text.split_once(MARK).map_or("", |(_, context)| context);
            let id = |line: &str| line.strip_prefix("id ")?.split(' ').next()?.parse().ok();
            turn.messages.extend(context.lines().filter_map(id));
            turn.asked += context.lines().filter(|line| line.starts_with(doorbell::REQUEST)).count();
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, turn)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, turn)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_of_this_turn_are_proved() {
        let prompt = |text: &str| json!({"type": "user", "id": "p", "content": [{"text": text}]}).to_string();
        let result = |text: &str| {
            let response = json!({"functionResponse": {"response": {"output": text}}});
            let calls = json!([{"args": {"x": "id m9-abcdef"}, "result": [response]}]);
            json!({"type": "gemini", "id": "r", "content": "id m8-abcdef · sent", "toolCalls": calls}).to_string()
        };
        let answer = || json!({"type": "gemini", "id": "a", "content": "ok"}).to_string();
        let taken_back = |step: String| format!("{{\"$set\": {{\"messages\": [{step}]}}}}");
        let context =
            |id: &str| format!("\n\n<hook_context>&gt; hello\n&gt; id m7-abcdef · sent now\nid {id} · sent now\n</hook_context>");
        for (lines, expected) in [
            (vec![prompt(&context("m1-abcdef")), result(&context("m2-abcdef")), answer()], vec!["m1-abcdef", "m2-abcdef"]),
            (vec![prompt(&context("m1-abcdef")), result(""), result(&context("m2-abcdef"))], vec!["m1-abcdef"]),
            (vec![prompt(&context("m1-abcdef"))], vec![]),
            (vec![prompt(&context("m1-abcdef")), answer(), prompt("hello")], vec![]),
            (vec![prompt(&context("m1-abcdef")), answer(), taken_back(prompt("hello"))], vec![]),
            (vec![taken_back(format!("{},{}", prompt(&context("m1-abcdef")), answer()))], vec!["m1-abcdef"]),
            (vec![prompt("id m1-abcdef · sent"), result("id m2-abcdef · sent"), answer(), "{\"$set\": {}}".to_owned()], vec![]),
            (vec![result(&context("m2-abcdef")), answer(), "half a li".to_owned()], vec!["m2-abcdef"]),
            (vec![], vec![]),
        ] {
            let turn = last_turn(lines.join("\n").as_bytes());
            let found: Vec<_> = turn.messages.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{lines:?}");
        }
    }
}
