//! What is special to Gemini CLI: our hook brings messages beside results and prompts.

use crate::{
    Test,
    agents::Agent,
    doors::{send, shown},
    support::{broker::signal, events::Peer, eventually},
    terminal::Terminal,
    world::World,
};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, sync::mpsc::channel};

pub const TESTS: &[(&str, Test)] = &[
    ("messages_come_beside_a_result", messages_come_beside_a_result),
    ("message_comes_beside_the_next_prompt", message_comes_beside_the_next_prompt),
    ("killed_session_has_read_it_once", killed_session_has_read_it_once),
    ("dropped_message_comes_again", dropped_message_comes_again),
    ("held_message_waits_for_its_release", held_message_waits_for_its_release),
    ("session_goes_on_without_a_broker", session_goes_on_without_a_broker),
    ("session_without_its_terminal_is_unattended", session_without_its_terminal_is_unattended),
];

/// A call of a tool that is not ours.
fn another_tool() -> (&'static str, Value) {
    ("list_directory", json!({"dir_path": "."}))
}

/// Starts a session, and waits until it is registered. Returns its id, too.
fn open<'a>(world: &'a World, arguments: &[&str]) -> (Terminal<'a>, Value) {
    let terminal = Terminal::start(world, "work", arguments);
    terminal.shows("Type your message");
    let peer = eventually("the session is registered", || terminal.peer());
    (terminal, peer["id"].clone())
}

/// How often Enter is pressed for one line.
const MOST_ENTERS: usize = 10;

/// Types a line and sends it. Gemini CLI may drop Enter or take it for a part of the text, and sends the same line twice if Enter comes
/// twice. So each Enter is followed by a letter: what is in the prompt before it shows what became of the Enter.
fn prompt(terminal: &Terminal<'_>, line: &str) {
    terminal.types(line);
    for _ in 0..MOST_ENTERS {
        terminal.keys(&["End", "Enter", "x"]);
        let text = eventually("the prompt shows the letter", || prompted(&terminal.screen()).filter(|text| text.ends_with('x')));
        terminal.keys(&["BSpace"]);
        eventually("the letter is gone", || prompted(&terminal.screen()).filter(|text| !text.ends_with('x')));
        if text == "x" {
            return;
        }
    }
    panic!("{line:?} is not sent: {}", terminal.screen());
}

/// What is in the prompt, which stands between two bars at the end of the screen.
fn prompted(screen: &str) -> Option<String> {
    let (_, prompt) = screen.rsplit_once("▄\n")?;
    let (prompt, _) = prompt.split_once('▀')?;
    Some(prompt.trim().trim_start_matches(['>', '*', ' ']).to_owned()) // a star where prompts for permission are bypassed
}

/// Whether the model was shown this text by our hook.
fn is_in_context(world: &World, text: &str) -> bool {
    let last = world.model.last();
    last.split("<hook_context>")
        .any(|context| context.split_once("</hook_context>").is_some_and(|(context, _)| context.contains(text)))
}

fn messages_come_beside_a_result(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let (broker, from) = (world.broker.shared(), other.clone());
    let calls = [("list_peers", json!({"scope": "machine"})), another_tool(), another_tool()];
    // They are sent while the agent runs: between its first call and its second.
    let sent = world.model.plan_with(&calls, move || {
        let send =
            |text| from.over(&broker.http()).post("/v1/send", &json!({"to": "work", "text": text})).json()["messageId"].clone();
        json!([send("number 0."), send("number 1.")])
    });
    let said = world.prompt(false);
    let ids = sent.recv().unwrap();
    assert_eq!(world.model.left(), 0, "all calls were made: {said}");
    for (number, id) in ids.as_array().unwrap().iter().enumerate() {
        shown(&world, &format!("number {number}."));
        assert!(is_in_context(&world, &format!("number {number}.")), "{}", world.model.last());
        assert_eq!(world.broker.message(id)["state"], "delivered", "the end of the turn proves it");
    }
    let last = world.model.last();
    assert!(last.find("number 0.") < last.find("number 1."), "{last}");
    assert!(last.contains("from another coding-agent session and not from the user"), "{last}");
}

fn message_comes_beside_the_next_prompt(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let (terminal, to) = open(&world, &[]);
    let id = send(&world, &other, &to, "It is 8080");
    prompt(&terminal, "Good morning");
    world.broker.message_once("delivered", &id);
    shown(&world, "It is 8080");
    assert!(is_in_context(&world, "It is 8080"), "{}", world.model.last());
    assert!(!world.model.last().contains("possible repeat"), "{}", world.model.last());
}

fn killed_session_has_read_it_once(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let (terminal, to) = open(&world, &[]);
    let id = send(&world, &other, &to, "It is 8080");
    let ((thinks, thinking), (answer, answers)) = (channel::<()>(), channel::<()>());
    world.model.plan_after(0, move || {
        thinks.send(()).unwrap();
        _ = answers.recv(); // ends with the test at the latest
        Value::Null
    });
    prompt(&terminal, "Good morning");
    thinking.recv().unwrap();
    let server = terminal.peer().unwrap()["pid"].as_u64().unwrap();
    signal(parent(server), "KILL");
    eventually("the session is gone", || terminal.peer().is_none().then_some(()));
    drop((terminal, answer));

    // While Gemini CLI brings the old conversation back, it loses keys.
    let terminal = Terminal::start(&world, "work", &["--resume", "latest", "--prompt-interactive", "Good evening"]);
    world.broker.message_once("delivered", &id);
    eventually("the resumed session is the same peer", || terminal.peer().filter(|peer| peer["id"] == to));
    shown(&world, "It is 8080");
}

fn dropped_message_comes_again(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let (terminal, to) = open(&world, &[]);
    let id = send(&world, &other, &to, "It is 8080");
    let transcripts = world.home().join(".gemini/tmp/work/chats");
    // As if the hook's output had been dropped: the transcript is without it.
    let shown = world.model.plan_after(0, move || {
        let all = fs::read_dir(transcripts).unwrap().map(|file| file.unwrap().path());
        all.for_each(|transcript| fs::write(transcript, "").unwrap());
        Value::Null
    });
    prompt(&terminal, "Good morning");
    shown.recv().unwrap();
    terminal.shows("✦ ok");
    assert_eq!(world.broker.message(&id)["state"], "queued", "nothing shows that the model was given it");
    prompt(&terminal, "Good evening");
    world.broker.message_once("delivered", &id);
    assert!(world.model.last().contains("possible repeat"), "{}", world.model.last());
}

fn parent(pid: u64) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

fn held_message_waits_for_its_release(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let (terminal, to) = open(&world, &["--yolo"]);
    let id = send(&world, &other, &to, "It is 8080");
    prompt(&terminal, "Good morning");
    terminal.shows("✦ ok");
    assert!(!world.model.last().contains("It is 8080"), "it is held");
    assert!(world.broker.cli(&["release", id.as_str().unwrap()]).status().unwrap().success());
    prompt(&terminal, "Good evening");
    world.broker.message_once("delivered", &id);
    assert!(is_in_context(&world, "It is 8080"), "{}", world.model.last());
}

fn session_goes_on_without_a_broker(agent: &'static Agent, program: PathBuf) {
    let mut world = World::new(agent, program);
    world.broker.kill();
    world.model.plan(&[another_tool()]);
    let said = world.prompt(false);
    assert_eq!(world.model.left(), 0, "{said}");
    assert!(!world.model.last().contains("</hook_context>"), "{}", world.model.last());
}

fn session_without_its_terminal_is_unattended(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let (terminal, _) = open(&world, &[]);
    terminal.close();
    let doing = |peer: Value| peer["activity"]["doing"].as_str().map(str::to_owned);
    eventually("the session is unattended", || terminal.peer().and_then(doing).filter(|doing| doing == "unattended"));
}
