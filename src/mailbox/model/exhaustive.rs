//! All interleavings up to a depth.

use super::{
    rest,
    steps::Step,
    world::{Door, Letter, Setup, World},
};
use stateright::{Checker, Model, Property};

pub const A: Letter = Letter { from: "a", is_long: false, answers: false };
const B: Letter = Letter { from: "b", ..A };
const USER: Letter = Letter { from: "cli", ..A };
pub const LONG: Letter = Letter { is_long: true, ..A };
const C: Letter = Letter { from: "c", answers: true, ..A };
const ANSWER: Letter = Letter { answers: true, ..A };

impl Model for Setup {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.clone())]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Step>) {
        actions.extend(state.enabled());
    }

    fn next_state(&self, state: &World, step: Step) -> Option<World> {
        Some(state.next(step))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("the promises are kept", |_, world| rest::broken(world).is_none())]
    }
}

/// Checks every run of `setup` with fewer than `depth` steps.
fn check(name: &str, setup: Setup, depth: usize) {
    let deeper = std::env::var("CLAUDE_PEERS_MODEL_DEEPER").map_or(0, |deeper| deeper.parse().unwrap());
    let depth = depth.saturating_add_signed(deeper);
    let began = std::time::Instant::now();
    let checker = setup.checker().threads(2).target_max_depth(depth).spawn_bfs().join();
    if let Some(path) = checker.discoveries().into_values().next() {
        let broken = rest::broken(path.last_state());
        let steps: Vec<Step> = path.into_actions();
        panic!("{name}: {}\nafter {steps:?}", broken.unwrap_or_default());
    }
    println!("{name}: {} states, depth {}, {:.1?}", checker.unique_state_count(), checker.max_depth(), began.elapsed());
}

/// Two servers, two agent processes, one fault and one cancelled call.
pub fn setup(door: Door, letters: &[Letter]) -> Setup {
    Setup {
        door,
        letters: letters.to_vec(),
        servers: 2,
        agents: 2,
        faults: 1,
        cancels: 1,
        controls: 0,
        replies: 0,
        expires: false,
    }
}

#[test]
fn calls_keep_the_promises() {
    check("calls", setup(Door::None, &[A, A]), 9);
}

#[test]
fn channel_keeps_the_promises() {
    check("channel", Setup { replies: 1, ..setup(Door::Channel, &[A, A]) }, 9);
}

#[test]
fn inbox_keeps_the_promises() {
    check("inbox", setup(Door::Hooked, &[A, A]), 9);
}

#[test]
fn inbox_without_hook_keeps_the_promises() {
    check("bare", Setup { replies: 1, ..setup(Door::Bare, &[A, B]) }, 9);
}

#[test]
fn long_messages_keep_the_promises() {
    check("long", Setup { servers: 1, ..setup(Door::Channel, &[LONG, A]) }, 8);
    check("long", Setup { servers: 1, ..setup(Door::Hooked, &[LONG, A]) }, 8);
}

#[test]
fn held_messages_keep_the_promises() {
    let controls = Setup { servers: 1, cancels: 0, controls: 2, ..setup(Door::Hooked, &[A, C]) };
    check("held in inbox", controls.clone(), 8);
    check("held", Setup { door: Door::Channel, letters: vec![A, USER, ANSWER], ..controls }, 8);
}

#[test]
fn expired_messages_keep_the_promises() {
    check("expired", Setup { servers: 1, expires: true, ..setup(Door::Channel, &[A, B]) }, 8);
}

#[test]
fn polls_keep_the_promises() {
    check("polls", setup(Door::Legacy, &[A, A]), 12);
}
