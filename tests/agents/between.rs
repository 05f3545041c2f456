//! Agents of several kinds in one home talk to each other.

use crate::{agents::Agent, support::eventually, terminal::Terminal, world::World};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A test with all agents, each installed in its folder.
pub type Test = fn(Vec<(&'static Agent, PathBuf)>);

pub const TESTS: &[(&str, Test)] = &[
    ("everyone_writes_to_the_next", everyone_writes_to_the_next),
    ("question_between_kinds_is_answered", question_between_kinds_is_answered),
];

/// How many messages each session writes to the next.
const MANY: usize = 20;

/// One world for each agent that can be reached in a terminal: they share the home and the broker.
fn worlds(agents: Vec<(&'static Agent, PathBuf)>) -> Vec<World> {
    let mut worlds: Vec<World> = Vec::new();
    for (agent, program) in agents.into_iter().filter(|(agent, _)| agent.terminal.is_some_and(|terminal| terminal.has_door)) {
        let world = match worlds.first() {
            None => World::new(agent, program),
            Some(first) => World::beside(first, agent, program),
        };
        worlds.push(world);
    }
    worlds
}

fn id(terminal: &Terminal) -> Value {
    terminal.reached()["id"].clone()
}

fn everyone_writes_to_the_next(agents: Vec<(&'static Agent, PathBuf)>) {
    let worlds = worlds(agents);
    let terminals: Vec<Terminal> = worlds.iter().map(|world| Terminal::open(world, world.agent.name)).collect();
    let ids: Vec<Value> = terminals.iter().map(id).collect();
    let text = |from: usize, number: usize| format!("number {number} from {}.", worlds[from].agent.name);
    for (from, world) in worlds.iter().enumerate() {
        let to = &ids[(from + 1) % ids.len()];
        let call = |number| ("send_message", json!({"targetPeerId": to, "message": text(from, number)}));
        world.model.plan(&(0..MANY).map(call).collect::<Vec<_>>());
    }
    for terminal in &terminals {
        terminal.prompt("Please send them.");
    }
    let delivered = "SELECT count(*) FROM message WHERE state = 2";
    let all = (MANY * worlds.len()) as i64;
    for number in 1..=all {
        // One after the other, so that a slow machine only has to make progress.
        eventually(&format!("message {number} is delivered"), || (worlds[0].broker.count(delivered) >= number).then_some(()));
    }
    for (to, world) in worlds.iter().enumerate() {
        let from = (to + worlds.len() - 1) % worlds.len();
        eventually("the last message is shown", || world.model.last().contains(&text(from, MANY - 1)).then_some(()));
        let shown = world.model.last();
        let places: Vec<Vec<usize>> =
            (0..MANY).map(|number| shown.match_indices(&text(from, number)).map(|(place, _)| place).collect()).collect();
        assert!(places.iter().all(|found| found.len() == 1), "{}: each is shown once: {places:?}", world.agent.name);
        assert!(places.is_sorted(), "{}: they are in order: {places:?}", world.agent.name);
    }
}

fn question_between_kinds_is_answered(agents: Vec<(&'static Agent, PathBuf)>) {
    let worlds = worlds(agents);
    let world = |name: &str| worlds.iter().find(|world| world.agent.name == name).unwrap();
    let (asks, answers) = (world("qwen"), world("pi"));
    let (asking, answering) = (Terminal::open(asks, "asks"), Terminal::open(answers, "answers"));
    let (asker, answerer) = (id(&asking), id(&answering));
    answers.model.plan(&[("send_message", json!({"targetPeerId": asker, "message": "It is 8080"}))]);
    let question = json!({"targetPeerId": "answers", "message": "Which port?", "waitForReplySeconds": 60});
    asks.model.plan(&[("send_message", question)]);
    asking.prompt("Please ask.");
    eventually("the answer is shown", || asks.model.last().contains("It is 8080").then_some(()));
    assert_eq!(asks.model.last().matches("It is 8080").count(), 1);
    assert!(answers.model.last().contains("Which port?"));
    assert_eq!(answering.peer().unwrap()["id"], answerer);
}
