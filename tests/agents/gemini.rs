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
use std::{
    fs,
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
};

pub const TESTS: &[(&str, Test)] = &[
    ("messages_come_beside_a_result", messages_come_beside_a_result),
    ("message_comes_beside_the_next_prompt", message_comes_beside_the_next_prompt),
    ("killed_session_reads_it_again_only_marked", killed_session_reads_it_again_only_marked),
    ("dropped_message_comes_again", dropped_message_comes_again),
    ("queued_prompts_show_it_once", queued_prompts_show_it_once),
    ("cancelled_prompts_lose_no_message", cancelled_prompts_lose_no_message),
    ("held_message_waits_for_its_release", held_message_waits_for_its_release),
    ("session_goes_on_without_a_broker", session_goes_on_without_a_broker),
    ("session_without_its_terminal_is_unattended", session_without_its_terminal_is_unattended),
    ("idle_session_is_woken_each_time", idle_session_is_woken_each_time),
    ("doorbell_needs_the_users_settings", doorbell_needs_the_users_settings),
    ("busy_session_is_rung_again", busy_session_is_rung_again),
    ("two_doorbells_do_no_harm", two_doorbells_do_no_harm),
    ("doorbell_outlives_the_broker", doorbell_outlives_the_broker),
    ("doorbell_ends_with_its_session", doorbell_ends_with_its_session),
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

fn killed_session_reads_it_again_only_marked(agent: &'static Agent, program: PathBuf) {
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
    // No answer shows whether the killed session has read it.
    let last = world.model.last();
    assert_eq!(last.matches("It is 8080").count(), last.matches("possible repeat").count() + 1, "{last}");
}

fn dropped_message_comes_again(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let (terminal, to) = open(&world, &[]);
    let id = send(&world, &other, &to, "It is 8080");
    let transcripts = world.home().join(".gemini/tmp").join("work/chats");
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

/// Makes the model's first answer wait. Returns what tells that it is asked, and what lets it answer.
fn blocked(world: &World) -> (Receiver<()>, Sender<()>) {
    let ((thinks, thinking), (answer, answers)) = (channel::<()>(), channel::<()>());
    world.model.plan_after(0, move || {
        thinks.send(()).unwrap();
        _ = answers.recv(); // ends with the test at the latest
        Value::Null
    });
    (thinking, answer)
}

fn queued_prompts_show_it_once(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let (terminal, to) = open(&world, &[]);
    let mut sent = vec![send(&world, &other, &to, "number 0.")];
    let (thinking, answer) = blocked(&world);
    prompt(&terminal, "First prompt");
    thinking.recv().unwrap();
    for (number, line) in ["Second prompt", "Third prompt"].into_iter().enumerate() {
        sent.push(send(&world, &other, &to, &format!("number {}.", number + 1)));
        prompt(&terminal, line);
    }
    answer.send(()).unwrap();
    for (number, id) in sent.iter().enumerate() {
        world.broker.message_once("delivered", id);
        shown(&world, &format!("number {number}."));
    }
    shown(&world, "Third prompt");
    assert!(!world.model.last().contains("possible repeat"), "{}", world.model.last());
}

fn cancelled_prompts_lose_no_message(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let (terminal, to) = open(&world, &[]);
    let mut sent = Vec::new();
    for number in 0..3 {
        sent.push(send(&world, &other, &to, &format!("number {number}.")));
        let (thinking, answer) = blocked(&world);
        prompt(&terminal, &format!("Prompt {number}"));
        thinking.recv().unwrap();
        terminal.keys(&["Escape"]);
        terminal.shows_no_more("esc to cancel");
        answer.send(()).unwrap();
    }
    prompt(&terminal, "Last prompt");
    shown(&world, "Last prompt");
    for (number, id) in sent.iter().enumerate() {
        world.broker.message_once("delivered", id);
        shown(&world, &format!("number {number}."));
    }
    let last = world.model.last();
    assert_eq!(last.matches("possible repeat").count(), 3, "a cancelled request may have shown it: {last}");
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
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let (terminal, to) = open(&world, &[]);
    terminal.close();
    let is_left = |peer: &Value| peer["activity"]["doing"] == "unattended";
    let peer = eventually("the session is unattended", || terminal.peer().filter(is_left));
    assert!(peer["deliveryReason"].as_str().unwrap().contains("its user has left"), "{peer}");
    let http = other.over(&world.broker.http());
    for (wake, warning) in [(false, "is unattended"), (true, "cannot be interrupted")] {
        let sent = http.post("/v1/send", &json!({"to": to, "text": format!("wake: {wake}"), "wake": wake})).json();
        assert!(sent["warning"].as_str().unwrap().contains(warning), "{sent}");
        assert_eq!(sent["state"], "queued");
    }
}

/// The command with which the model starts a doorbell, as our hook gives it.
const DOORBELL: &str = concat!(env!("CARGO_BIN_EXE_claude-peers"), " doorbell --print");
/// What it prints.
const LINE: &str = "Please call check_messages: other sessions have written.";

fn doorbell() -> (&'static str, Value) {
    ("run_shell_command", json!({"command": DOORBELL, "is_background": true}))
}

/// Lets the model run the doorbell without a question. With `wakes`, also turns on that its end wakes an idle session.
fn allow_doorbell(world: &World, wakes: bool) {
    let file = world.home().join(".gemini/settings.json");
    let mut settings: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let rule = format!("toolName = \"run_shell_command\"\ncommandPrefix = {DOORBELL:?}\ndecision = \"allow\"\npriority = 100\n");
    fs::create_dir_all(world.home().join(".gemini/policies")).unwrap();
    fs::write(world.home().join(".gemini/policies/doorbell.toml"), format!("[[rule]]\n{rule}")).unwrap();
    if wakes {
        settings["experimental"]["modelSteering"] = json!(true);
        settings["tools"]["shell"]["backgroundCompletionBehavior"] = json!("inject");
    }
    fs::write(&file, settings.to_string()).unwrap();
}

/// Whether the list says that a doorbell rings for the session.
fn has_doorbell(peer: &Value) -> bool {
    peer["deliveryReason"].as_str().unwrap().contains("doorbell")
}

/// Waits until a doorbell rings for the session.
fn rings(terminal: &Terminal<'_>) {
    eventually("a doorbell rings for it", || terminal.peer().filter(has_doorbell));
}

/// Starts a session whose user has opted in, with a doorbell.
fn open_with_doorbell(world: &World) -> (Terminal<'_>, Value) {
    allow_doorbell(world, true);
    let (terminal, to) = open(world, &[]);
    assert!(!has_doorbell(&terminal.peer().unwrap()), "none was started");
    world.model.plan(&[doorbell()]);
    prompt(&terminal, "Good morning");
    rings(&terminal);
    is_idle_again(world, &terminal, 1);
    assert!(is_in_context(world, DOORBELL), "the model is asked to start it: {}", world.model.last());
    (terminal, to)
}

/// Waits until the turn is over in which this many doorbells were started.
fn is_idle_again(world: &World, terminal: &Terminal<'_>, started: usize) {
    let is_last = || (world.model.last().matches("Command moved to background").count() == started).then_some(());
    eventually("the model has started a doorbell", is_last);
    terminal.shows_no_more("esc to cancel");
}

fn idle_session_is_woken_each_time(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let (terminal, to) = open_with_doorbell(&world);
    for (number, text) in ["number 0.", "number 1.", "number 2."].into_iter().enumerate() {
        terminal.types(&format!(" half {number}"));
        world.model.plan(&[("check_messages", json!({})), doorbell()]);
        let id = send(&world, &other, &to, text);
        world.broker.message_once("delivered", &id);
        shown(&world, text);
        rings(&terminal);
        is_idle_again(&world, &terminal, number + 2);
        eventually("half a line stays", || prompted(&terminal.screen()).filter(|text| text.contains(&format!("half {number}"))));
    }
    assert_eq!(world.model.last().matches(LINE).count(), 3, "{}", world.model.last());
    assert!(!world.model.last().contains("possible repeat"), "{}", world.model.last());
    let user_says = world
        .model
        .last()
        .split("<user_input>")
        .skip(1)
        .any(|said| said.split_once("</user_input>").unwrap().0.contains("number"));
    assert!(!user_says, "no text of a peer is the user's: {}", world.model.last());
}

fn doorbell_needs_the_users_settings(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    allow_doorbell(&world, false);
    let (terminal, _) = open(&world, &[]);
    world.model.plan(&[("run_shell_command", json!({"command": DOORBELL}))]);
    prompt(&terminal, "Good morning");
    terminal.shows("✦ ok");
    assert!(world.model.last().contains("the user has not turned on"), "{}", world.model.last());
    assert!(!is_in_context(&world, "doorbell"), "the model is not asked to start it: {}", world.model.last());
    assert!(!has_doorbell(&terminal.peer().unwrap()));
    for (wakes, words) in [(false, "waking idle sessions is off"), (true, "waking idle sessions is on")] {
        allow_doorbell(&world, wakes);
        let (state, said) = world.doctor();
        assert!(state == "ok" && said.contains(words), "{said}");
    }
}

fn busy_session_is_rung_again(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let (terminal, to) = open_with_doorbell(&world);
    let (broker, from, name) = (world.broker.shared(), other.clone(), to.clone());
    let sent = world.model.plan_with(&[another_tool(), another_tool(), doorbell()], move || {
        let http = broker.http();
        let id = from.over(&http).post("/v1/send", &json!({"to": name, "text": "It is 8080"})).json()["messageId"].clone();
        eventually("the doorbell has rung", || broker.peers().into_iter().find(|peer| peer["id"] == name && !has_doorbell(peer)));
        id
    });
    prompt(&terminal, "Good evening");
    let id = sent.recv().unwrap();
    world.broker.message_once("delivered", &id);
    eventually("all calls were made", || (world.model.left() == 0).then_some(()));
    rings(&terminal);
    shown(&world, "It is 8080");
    let id = send(&world, &other, &to, "No, 8081");
    world.broker.message_once("delivered", &id);
    shown(&world, "No, 8081");
}

fn two_doorbells_do_no_harm(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let (terminal, to) = open_with_doorbell(&world);
    world.model.plan(&[doorbell()]);
    prompt(&terminal, "Good evening");
    eventually("a second one runs", || (doorbells(&world).len() == 2).then_some(()));
    is_idle_again(&world, &terminal, 2); // during the turn the message would come beside a result, without a ring
    let id = send(&world, &other, &to, "It is 8080");
    world.broker.message_once("delivered", &id);
    shown(&world, "It is 8080");
    assert_eq!(world.model.last().matches(LINE).count(), 1, "one has rung: {}", world.model.last());
    rings(&terminal); // the other waits for the next
}

fn doorbell_outlives_the_broker(agent: &'static Agent, program: PathBuf) {
    let mut world = World::new(agent, program);
    let shared = world.broker.shared();
    let mut broker = std::mem::replace(&mut world.broker, shared);
    let other = Peer::register(&broker.http(), "other", json!({}));
    let (terminal, to) = open_with_doorbell(&world);
    broker.restart();
    rings(&terminal);
    let id = send(&world, &other, &to, "It is 8080");
    broker.message_once("delivered", &id);
    shown(&world, "It is 8080");
}

/// The doorbells in this world.
fn doorbells(world: &World) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let read = |pid: u32, file: &str| {
        let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default(); // it may have ended
        String::from_utf8_lossy(&text).replace('\0', " ")
    };
    let home = format!("HOME={} ", world.home().display());
    pids.filter(|pid| read(*pid, "cmdline").starts_with(DOORBELL) && read(*pid, "environ").contains(&home)).collect()
}

fn doorbell_ends_with_its_session(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    for ends in ["killed", "quit", "closed"] {
        let (terminal, _) = open_with_doorbell(&world);
        assert_eq!(doorbells(&world).len(), 1);
        match ends {
            "killed" => signal(parent(terminal.peer().unwrap()["pid"].as_u64().unwrap()), "KILL"),
            "quit" => prompt(&terminal, "/quit"),
            _ => terminal.close(),
        }
        eventually("no doorbell is left", || doorbells(&world).is_empty().then_some(()));
        eventually("the session is gone", || terminal.peer().is_none().then_some(()));
    }
}
