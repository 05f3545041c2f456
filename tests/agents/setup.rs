//! `claude-peers setup` and `doctor` with the real agents. That sessions then use our tools is what the other tests show.

use crate::{Test, agents::Agent, world::World};
use std::path::PathBuf;

pub const TESTS: &[(&str, Test)] = &[("undo_removes_what_setup_added", undo_removes_what_setup_added)];

fn undo_removes_what_setup_added(agent: &'static Agent, program: PathBuf) {
    let world = World::new(agent, program);
    let ours = || agent.files.iter().filter(|file| world.names_us(file)).copied().collect::<Vec<_>>();
    assert_eq!(ours(), agent.files, "setup has added it");
    assert_eq!(world.doctor().0, "ok");

    let is_all = |steps: &[(String, String)], state: &str| !steps.is_empty() && steps.iter().all(|(is, _)| is == state);
    for (arguments, state) in [(&[][..], "already"), (&["--undo"], "undone"), (&["--undo"], "already")] {
        let steps = world.setup(arguments);
        assert!(is_all(&steps, state), "{arguments:?}: {steps:?}");
    }
    assert_eq!(ours(), [""; 0], "undo has removed it");
}
