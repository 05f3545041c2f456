//! `claude-peers doorbell` types into the pane of an agent without a door, and only where that is right.

use crate::{
    Test,
    agents::Agent,
    doors::{hand_over, send, shown},
    support::{broker::signal, events::Peer, eventually},
    terminal::Terminal,
    world::World,
};
use serde_json::{Value, json};
use std::path::PathBuf;

pub const TESTS: &[(&str, Test)] = &[
    ("idle_session_is_rung", idle_session_is_rung),
    ("typed_text_is_left_alone", typed_text_is_left_alone),
    ("pane_without_keys_is_left_alone", pane_without_keys_is_left_alone),
    ("typing_person_is_left_alone", typing_person_is_left_alone),
    ("moving_screen_is_left_alone", moving_screen_is_left_alone),
    ("busy_agent_is_left_alone", busy_agent_is_left_alone),
    ("shell_is_left_alone", shell_is_left_alone),
    ("waiting_mail_is_rung_once", waiting_mail_is_rung_once),
    ("unfit_panes_are_refused", unfit_panes_are_refused),
    ("door_needs_no_doorbell", door_needs_no_doorbell),
];

const LINE: &str = "Please call check_messages: other sessions have written.";

/// Starts a doorbell in a pane of its own, which stays open after its end.
fn doorbell<'a>(world: &'a World, name: &str, arguments: &str) -> Terminal<'a> {
    let command =
        format!("'{}' doorbell --tmux {arguments}; echo \"It ended with $?.\"; read -r _", env!("CARGO_BIN_EXE_claude-peers"));
    Terminal::run(world, name, &["sh", "-c", &command])
}

fn ringing<'a>(world: &'a World) -> Terminal<'a> {
    let bell = doorbell(world, "bell", "");
    bell.shows("Ringing for work");
    bell
}

/// Types a text. Goose's prompt has a sign that tmux may not know, and then the first letter stands apart.
fn types(terminal: &Terminal, text: &str) {
    terminal.keys(&["-l", "a ", text]);
    terminal.shows(text);
}

fn prompts(terminal: &Terminal) {
    types(terminal, "tool, please");
    terminal.keys(&["Enter"]);
}

/// Whether the model was ever asked.
fn was_asked(world: &World) -> bool {
    !world.model.last().is_empty()
}

fn idle_session_is_rung(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::without_door(&world, "work");
    let bell = ringing(&world);
    world.model.plan(&[("check_messages", json!({}))]);
    let id = send(&world, &other, &json!("work"), "It is 8080");
    world.broker.message_once("delivered", &id);
    shown(&world, "It is 8080");
    shown(&world, LINE);
    bell.shows("Rang: 1 waiting.");
    signal(parent_of(&terminal.peer().unwrap()), "KILL");
    bell.shows("No more ringing for work: the ");
}

fn typed_text_is_left_alone(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::without_door(&world, "work");
    let bell = ringing(&world);
    for (text, then, rings) in [("half sentence", "Enter", 1), ("half again", "C-u", 2)] {
        types(&terminal, text);
        let id = send(&world, &other, &json!("work"), &format!("after the {text}"));
        bell.shows("not rung yet: the prompt is not empty, or the agent is busy");
        assert!(terminal.screen().trim_end().ends_with(text), "{}", terminal.screen());
        assert_eq!(world.model.last().matches(LINE).count(), rings - 1);
        bell.tmux(&["send-keys", "-R", "-t", "bell"]); // clears its screen
        terminal.keys(&[then]);
        eventually("the session is rung", || (world.model.last().matches(LINE).count() == rings).then_some(()));
        terminal.shows(agent.terminal.unwrap().ready);
        world.model.plan(&[("check_messages", json!({}))]);
        prompts(&terminal);
        world.broker.message_once("delivered", &id);
        shown(&world, &format!("after the {text}"));
        terminal.shows(agent.terminal.unwrap().ready);
    }
}

fn pane_without_keys_is_left_alone(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::without_door(&world, "work");
    let bell = ringing(&world);
    world.model.plan(&[("check_messages", json!({}))]);
    terminal.tmux(&["copy-mode", "-t", "work"]);
    let id = send(&world, &other, &json!("work"), "It is 8080");
    bell.shows("not rung yet: the pane is scrolled or in copy mode");
    assert!(!was_asked(&world));
    terminal.tmux(&["set-option", "-w", "-t", "work", "synchronize-panes", "on"]);
    terminal.keys(&["-X", "cancel"]);
    bell.shows("not rung yet: the pane takes no input, or shares it with other panes");
    assert!(!was_asked(&world));
    terminal.tmux(&["set-option", "-w", "-t", "work", "synchronize-panes", "off"]);
    world.broker.message_once("delivered", &id);
    shown(&world, LINE);
}

fn typing_person_is_left_alone(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::without_door(&world, "work");
    let socket = world.home().join("tmux");
    let person =
        Terminal::run(&world, "person", &["env", "-u", "TMUX", "tmux", "-S", socket.to_str().unwrap(), "attach", "-t", "work"]);
    person.shows("[work]");
    let bell = ringing(&world);
    world.model.plan(&[("check_messages", json!({}))]);
    let id = send(&world, &other, &json!("work"), "It is 8080");
    eventually("the doorbell sees that somebody types", || {
        person.keys(&["Left"]); // changes nothing
        bell.screen().contains("not rung yet: somebody types").then_some(())
    });
    assert!(!terminal.screen().contains(LINE), "{}", terminal.screen());
    world.broker.message_once("delivered", &id);
}

/// A busy agent may still show an empty prompt, and something that moves.
fn moving_screen_is_left_alone(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::without_door(&world, "work");
    let bell = ringing(&world);
    world.model.plan(&[("check_messages", json!({}))]);
    let tty = String::from_utf8(terminal.tmux(&["display-message", "-p", "-t", "work", "#{pane_tty}"]).stdout).unwrap();
    let spins = format!("while printf '\\0337\\033[1;60H%s\\0338' $((i+=1)); do sleep 0.02; done >{}", tty.trim());
    let spinner = Terminal::run(&world, "spinner", &["sh", "-c", &spins]);
    let id = send(&world, &other, &json!("work"), "It is 8080");
    bell.shows("not rung yet: the screen moves, so the agent may be busy");
    assert!(!was_asked(&world));
    drop(spinner);
    world.broker.message_once("delivered", &id);
}

fn busy_agent_is_left_alone(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::without_door(&world, "work");
    let bell = ringing(&world);
    let handed = hand_over(&world, &other, "It is 8080", "queued");
    prompts(&terminal);
    handed.id();
    bell.shows("not rung yet: ");
    assert!(!terminal.screen().contains(LINE), "{}", terminal.screen());
    handed.answer.send(()).unwrap();
    shown(&world, LINE);
}

fn shell_is_left_alone(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let terminal = Terminal::run(&world, "work", &["bash", "--norc", "--noprofile"]);
    let command = world.interactive().join(" ");
    terminal.keys(&["-l", &command]);
    terminal.keys(&["Enter"]);
    terminal.shows(agent.terminal.unwrap().ready);
    let peer = eventually("its server is connected", || terminal.peer());
    let bell = ringing(&world);
    let pid = parent_of(&peer);
    signal(pid, "STOP");
    terminal.shows("Stopped");
    send(&world, &other, &json!("work"), "It is 8080");
    bell.shows("not rung yet: another program has the terminal");
    signal(pid, "KILL");
    bell.shows("No more ringing for work: the agent has ended.");
    assert!(!terminal.screen().contains("Please"), "{}", terminal.screen());
    assert!(!was_asked(&world));
}

/// The process that started the session's server.
fn parent_of(peer: &Value) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", peer["pid"])).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

fn waiting_mail_is_rung_once(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let other = Peer::register(&world.broker.http(), "other", json!({}));
    let (terminal, clock) = (Terminal::without_door(&world, "work"), Terminal::without_door(&world, "clock"));
    let [bell, ticks] = [("bell", "work"), ("ticks", "clock")].map(|(name, pane)| doorbell(&world, name, pane));
    bell.shows("Ringing for work");
    ticks.shows("Ringing for clock");
    send(&world, &other, &json!("work"), "first");
    shown(&world, LINE);
    let second = send(&world, &other, &json!("work"), "second");
    terminal.shows(agent.terminal.unwrap().ready);
    // Meanwhile another doorbell rings twice, so this one would have had the time, too.
    for tick in ["tick", "tock"] {
        clock.shows(agent.terminal.unwrap().ready);
        world.model.plan(&[("check_messages", json!({}))]);
        world.broker.message_once("delivered", &send(&world, &other, &json!("clock"), tick));
        shown(&world, tick);
    }
    assert_eq!(bell.screen().matches("Rang: ").count(), 1, "{}", bell.screen());
    world.model.plan(&[("check_messages", json!({}))]);
    terminal.shows(agent.terminal.unwrap().ready);
    prompts(&terminal);
    world.broker.message_once("delivered", &second);
    shown(&world, "second");
    terminal.shows(agent.terminal.unwrap().ready);
    world.model.plan(&[("check_messages", json!({}))]);
    let third = send(&world, &other, &json!("work"), "third");
    world.broker.message_once("delivered", &third);
    assert_eq!(bell.screen().matches("Rang: ").count(), 2, "{}", bell.screen());
}

fn unfit_panes_are_refused(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let _open = Terminal::run(&world, "open", &["cat"]);
    let refused = |arguments: &str, why: &str| {
        let bell = doorbell(&world, "bell", arguments);
        bell.shows("It ended with 1.");
        assert!(bell.screen().replace('\n', " ").contains(why), "{}", bell.screen());
    };
    refused("", "no tmux pane runs, in its foreground, a session that needs a doorbell");
    refused("work", "tmux has no pane \"work\"");
    refused("bell", "no session runs in the foreground of pane");

    let terminal = Terminal::without_door(&world, "work");
    types(&terminal, "half sentence");
    refused("work", "shows no empty prompt at its cursor");
    terminal.keys(&["C-u"]);
    let output = world.broker.cli(&["doorbell", "--tmux"]).envs(world.env()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("types for the person who starts it"), "{output:?}");
}

fn door_needs_no_doorbell(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let _terminal = Terminal::open(&world, "work");
    let bell = doorbell(&world, "bell", "work");
    bell.shows("needs no doorbell; inbox: written into its session at once");
    bell.shows("It ended with 1.");
}
