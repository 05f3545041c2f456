//! Scopes: directories, and repositories with all their worktrees and subdirectories; and the names that follow from them.

use crate::support::{
    Broker, Session, folder,
    git::{self, git},
    mcp::Start,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// A broker and sessions that only listen.
struct Place {
    broker: Broker,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { broker: Broker::start(), folder: folder() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn session(&self, directory: &str) -> Session {
        let directory = self.path(directory);
        fs::create_dir_all(&directory).unwrap();
        // Without a session id, these sessions share only their location.
        Start { broker: &self.broker, directory: &directory, session_id: "", delivery: "pull", env: Vec::new() }.go()
    }
}

fn list(session: &mut Session, scope: &str) -> Vec<Value> {
    session.tool("list_peers", json!({"scope": scope}))["peers"].as_array().unwrap().clone()
}

fn myself(session: &mut Session) -> Value {
    session.tool("list_peers", json!({"scope": "directory"}))["self"].clone()
}

fn run(directory: &Path, line: &str) {
    git(directory, &line.split(' ').collect::<Vec<_>>());
}

#[test]
fn each_scope_lists_exactly_its_peers() {
    let place = Place::new();
    git::repository(&place.path("engine"));
    run(&place.path("engine"), "worktree add -q ../engine-feature -b feature");
    run(&place.path("."), "clone -q --bare engine mirror.git");
    run(&place.path("mirror.git"), "worktree add -q ../mirror-work -b work");
    git::repository(&place.path("outer"));
    run(&place.path("outer"), "-c protocol.file.allow=always submodule add -q ../engine vendor/tool");

    // Each session's directory, repository, branch, and the sessions that share its repository.
    let (engine, mirror) = ("the engine", "the bare mirror");
    let sessions = [
        ("engine", Some("engine"), Some("main"), engine),
        ("engine/src/deep", Some("engine"), Some("main"), engine),
        ("engine-feature", Some("engine"), Some("feature"), engine),
        ("engine-feature/lib", Some("engine"), Some("feature"), engine),
        ("mirror.git", Some("mirror"), Some("main"), mirror),
        ("mirror-work", Some("mirror"), Some("work"), mirror),
        ("outer", Some("outer"), Some("main"), "the repository around the submodule"),
        ("outer/vendor/tool", Some("tool"), Some("main"), "the submodule"),
        ("plain", None, None, "plain"),
        ("plain", None, None, "plain"),
        ("plain/nested", None, None, "nested"),
    ];
    let mut open: Vec<Session> = sessions.iter().map(|(directory, ..)| place.session(directory)).collect();
    let ids: BTreeMap<String, usize> = open.iter_mut().enumerate().map(|(at, session)| (session.id(), at)).collect();

    for (at, (directory, repo, branch, group)) in sessions.iter().enumerate() {
        let me = myself(&mut open[at]);
        assert_eq!((&me["gitRepo"], &me["gitBranch"]), (&json!(repo), &json!(branch)), "{directory}");
        let mut seen = |scope: &str| {
            let mut seen: Vec<usize> = list(&mut open[at], scope).iter().map(|peer| ids[peer["id"].as_str().unwrap()]).collect();
            seen.sort_unstable();
            seen
        };
        let others: Vec<usize> = (0..sessions.len()).filter(|other| *other != at).collect();
        let of = |same: &dyn Fn(usize) -> bool| others.iter().copied().filter(|other| same(*other)).collect::<Vec<_>>();
        assert_eq!(seen("machine"), others, "{directory}");
        assert_eq!(seen("directory"), of(&|other| sessions[other].0 == *directory), "{directory}");
        assert_eq!(seen("repo"), of(&|other| sessions[other].3 == *group), "{directory}");
    }
}

#[test]
fn next_list_shows_the_new_branch() {
    let place = Place::new();
    git::repository(&place.path("engine"));
    run(&place.path("engine"), "worktree add -q ../elsewhere -b elsewhere");
    let (mut here, mut there) = (place.session("engine"), place.session("elsewhere"));
    for (change, branch) in [
        ("switch -q -c feature/login", json!("feature/login")),
        ("switch -q --detach", Value::Null),
        ("switch -q main", json!("main")),
        ("branch -q -m main trunk", json!("trunk")),
    ] {
        run(&place.path("engine"), change);
        assert_eq!(myself(&mut here)["gitBranch"], branch, "{change}");
        assert_eq!(list(&mut there, "repo")[0]["gitBranch"], branch, "{change}");
        assert_eq!(myself(&mut there)["gitBranch"], "elsewhere", "{change}");
    }
}

#[test]
fn symbolic_links_do_not_change_the_directory() {
    let place = Place::new();
    fs::create_dir(place.path("real")).unwrap();
    symlink("real", place.path("link")).unwrap();
    git::repository(&place.path("engine"));
    symlink("engine", place.path("linked-engine")).unwrap();
    for (straight, linked) in [("real", "link"), ("engine", "linked-engine")] {
        let (mut one, mut other) = (place.session(straight), place.session(linked));
        other.id(); // it is registered now
        for scope in ["directory", "repo"] {
            let cwds: Vec<_> = list(&mut one, scope).iter().map(|peer| peer["cwd"].clone()).collect();
            assert_eq!(cwds, [place.path(straight).to_str().unwrap()], "{linked} is {straight} in scope {scope}");
        }
    }
}

#[test]
fn names_follow_directories_and_are_unique() {
    let place = Place::new();
    for repository in ["one/api", "two/api", "Poker Engine!", "cli"] {
        git::repository(&place.path(repository));
    }
    let mut open = Vec::new();
    for (directory, name) in [
        ("one/api", "api"),
        ("two/api", "api-2"),
        ("two/api/src", "api-3"),
        ("Poker Engine!", "poker-engine"),
        ("cli", "cli-2"), // `cli` is the command line's own name
        ("no_repo", "no-repo"),
        ("日本", "session"),
    ] {
        let mut session = place.session(directory);
        assert_eq!(myself(&mut session)["name"], name, "{directory}");
        open.push(session);
    }
    open.remove(1).close();
    let mut heir = place.session("one/api");
    assert_eq!(myself(&mut heir)["name"], "api-2", "the name of a session that has ended is free");
}
