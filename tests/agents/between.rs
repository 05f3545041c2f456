//! Agents of several kinds in one home talk to each other.

use crate::{agents::Agent, doors::shown, support::eventually, terminal::Terminal, world::World};
use serde_json::{Value, json};
use std::{path::PathBuf, process::Command};

/// A test with all agents, each installed in its folder.
pub type Test = fn(Vec<(&'static Agent, PathBuf)>);

pub const TESTS: &[(&str, Test)] = &[
    ("everyone_writes_to_the_next", everyone_writes_to_the_next),
    ("claude_asks_codex", claude_asks_codex),
    ("opencode_answers_qwen_by_name", opencode_answers_qwen_by_name),
    ("codex_tells_everyone_in_the_repository", codex_tells_everyone_in_the_repository),
];

/// The variable that says how many messages each session writes to the next.
const MESSAGES: &str = "CLAUDE_PEERS_AGENTS_MESSAGES";
const FEW: usize = 20;

/// One world for each of these agents: they share the home and the broker.
fn worlds(agents: Vec<(&'static Agent, PathBuf)>, wanted: impl Fn(&Agent) -> bool) -> Vec<World> {
    let mut worlds: Vec<World> = Vec::new();
    for (agent, program) in agents.into_iter().filter(|(agent, _)| wanted(agent)) {
        let world = match worlds.first() {
            None => World::new(agent, program),
            Some(first) => World::beside(first, agent, program),
        };
        worlds.push(world);
    }
    worlds
}

/// The worlds of the agents with these names, in this order.
fn named<const N: usize>(agents: Vec<(&'static Agent, PathBuf)>, names: [&str; N]) -> [World; N] {
    let mut worlds = worlds(agents, |agent| names.contains(&agent.name));
    worlds.sort_by_key(|world| names.iter().position(|name| *name == world.agent.name));
    worlds.try_into().unwrap_or_else(|_| panic!("{names:?} are agents"))
}

fn id(terminal: &Terminal) -> Value {
    terminal.reached()["id"].clone()
}

fn everyone_writes_to_the_next(agents: Vec<(&'static Agent, PathBuf)>) {
    let many = std::env::var(MESSAGES).map_or(FEW, |many| many.parse().unwrap());
    let worlds = worlds(agents, |agent| agent.terminal.is_some_and(|terminal| terminal.has_door));
    let terminals: Vec<Terminal> = worlds.iter().map(|world| Terminal::open(world, world.agent.name)).collect();
    let ids: Vec<Value> = terminals.iter().map(id).collect();
    let text = |from: usize, number: usize| format!("number {number} from {}.", worlds[from].agent.name);
    for (from, world) in worlds.iter().enumerate() {
        let to = &ids[(from + 1) % ids.len()];
        let call = |number| ("send_message", json!({"targetPeerId": to, "message": text(from, number)}));
        world.model.plan(&(0..many).map(call).collect::<Vec<_>>());
    }
    for terminal in &terminals {
        terminal.prompt("Please send them.");
    }
    let delivered = "SELECT count(*) FROM message WHERE state = 2 AND text LIKE 'number %'";
    let all = (many * worlds.len()) as i64;
    for number in 1..=all {
        // One after the other, so that a slow machine only has to make progress.
        eventually(&format!("message {number} is delivered"), || (worlds[0].broker.count(delivered) >= number).then_some(()));
    }
    for (to, world) in worlds.iter().enumerate() {
        let from = (to + worlds.len() - 1) % worlds.len();
        eventually("the last message is shown", || world.model.last().contains(&text(from, many - 1)).then_some(()));
        let shown = world.model.last();
        let places: Vec<Vec<usize>> =
            (0..many).map(|number| shown.match_indices(&text(from, number)).map(|(place, _)| place).collect()).collect();
        assert!(places.iter().all(|found| found.len() == 1), "{}: each is shown once: {places:?}", world.agent.name);
        assert!(places.is_sorted(), "{}: they are in order: {places:?}", world.agent.name);
    }
}

fn claude_asks_codex(agents: Vec<(&'static Agent, PathBuf)>) {
    let [asks, answers] = named(agents, ["claude", "codex"]);
    question_is_answered(&asks, &answers, id);
}

fn opencode_answers_qwen_by_name(agents: Vec<(&'static Agent, PathBuf)>) {
    let [asks, answers] = named(agents, ["qwen", "opencode"]);
    question_is_answered(&asks, &answers, |_| json!("asks"));
}

fn question_is_answered(asks: &World, answers: &World, asker: fn(&Terminal) -> Value) {
    let (asking, answering) = (Terminal::open(asks, "asks"), Terminal::open(answers, "answers"));
    let answerer = id(&answering);
    let answer = json!({"targetPeerId": asker(&asking), "message": "It is 8080"});
    answers.model.plan_at("Which port?", &[("send_message", answer)]);
    let question = json!({"targetPeerId": "answers", "message": "Which port?", "waitForReplySeconds": 60});
    asks.model.plan(&[("send_message", question)]);
    asking.prompt("Please ask.");
    eventually("the answer is shown", || asks.model.last().contains("It is 8080").then_some(()));
    assert_eq!(asks.model.last().matches("It is 8080").count(), 1);
    assert!(answers.model.last().contains("Which port?"));
    assert_eq!(answering.peer().unwrap()["id"], answerer);
}

fn codex_tells_everyone_in_the_repository(agents: Vec<(&'static Agent, PathBuf)>) {
    let [codex, claude, pi, qwen] = named(agents, ["codex", "claude", "pi", "qwen"]);
    let repository = codex.directory("repo");
    assert!(Command::new("git").args(["init", "--quiet"]).arg(repository).status().unwrap().success());
    let inside = [&codex, &claude, &pi].map(|world| Terminal::open(world, &format!("repo/{}", world.agent.name)));
    let _outside = Terminal::open(&qwen, "outside");
    codex.model.plan(&[("send_message", json!({"targetPeerId": "@repo", "message": "The API breaks tomorrow"}))]);
    inside[0].prompt("Please tell them.");
    for world in [&claude, &pi] {
        shown(world, "The API breaks tomorrow");
    }
    // Setup's own check has left messages, too.
    let copies = "SELECT count(*) FROM message WHERE text = 'The API breaks tomorrow'";
    let delivered = format!("{copies} AND state = 2");
    eventually("both copies are delivered", || (codex.broker.count(&delivered) == 2).then_some(()));
    assert_eq!(codex.broker.count(copies), 2);
}
