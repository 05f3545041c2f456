//! Repositories that others control: they block nobody, start no program, and show no text of another user.

use crate::support::{
    Broker, Session,
    events::Peer,
    eventually, folder,
    git::{self, git, git_dir},
    mcp::Start,
    mount::DeadMount,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown, lchown, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Another user's id.
const OTHER: Option<u32> = Some(65_534);

fn session(broker: &Broker, directory: &Path) -> Session {
    Start { broker, directory, session_id: "", delivery: "pull", env: Vec::new() }.go()
}

/// The repository and the branch that a session shows of itself.
fn shown(session: &mut Session) -> (Value, Value) {
    let me = session.list()["self"].clone();
    (me["gitRepo"].clone(), me["gitBranch"].clone())
}

/// The summary of the only session, as soon as it has one.
fn summary(broker: &Broker) -> String {
    eventually("the session has a summary", || {
        let summary = broker.peers().first()?["summary"].as_str()?.to_owned();
        (!summary.is_empty()).then_some(summary)
    })
}

/// Puts a named pipe where `path` is.
fn pipe(path: &Path) {
    drop(fs::remove_file(path).or_else(|_| fs::remove_dir_all(path)));
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn pipes_among_git_files_block_nobody() {
    for file in [".git", ".git/HEAD", ".git/commondir", ".git/reftable/tables.list"] {
        let (mut broker, place) = (Broker::start(), folder());
        let work = place.path().join("work");
        git::repository(place.path());
        fs::create_dir_all(&work).unwrap();
        fs::create_dir_all(place.path().join(".git/reftable")).unwrap();
        fs::write(place.path().join(".git/HEAD"), "ref: refs/heads/.invalid\n").unwrap();
        pipe(&place.path().join(file));
        for settings in [work.join(".claude"), broker.folder().join(".claude")] {
            fs::create_dir(&settings).unwrap();
            pipe(&settings.join("settings.json"));
        }
        let mut session = session(&broker, &work);
        assert_eq!(shown(&mut session).1, Value::Null, "{file}");

        let http = broker.http();
        let head = place.path().join(file);
        let git = json!({"commonDir": place.path(), "head": head, "repo": "engine", "branch": "old"});
        let _stream = Peer::register(&http, "pipe", json!({ "git": git })).follow(&http);
        for _ in 0..3 {
            let cwd = work.to_str().unwrap();
            assert_eq!(http.get(&format!("/v1/peers?scope=repo&cwd={cwd}")).json()["peers"][0]["cwd"], cwd, "{file}");
            assert_eq!(http.get("/v1/peers?scope=machine").json()["peers"].as_array().unwrap().len(), 2, "{file}");
        }
        assert!(broker.terminate().success(), "{file}");
    }
}

#[test]
fn another_users_repository_is_not_shown() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can give files to another user");
    }
    let give = |path: &Path| lchown(path, OTHER, OTHER).unwrap();
    type Prepare<'a> = &'a dyn Fn(&Path);
    let prepare: [(&str, Prepare<'_>); 6] = [
        ("its folder", &|top| give(&top.join(".git"))),
        ("its top", &|top| give(top)),
        ("a file in its place", &|top| {
            fs::rename(top.join(".git"), top.join("real")).unwrap();
            fs::write(top.join(".git"), "gitdir: real\n").unwrap();
            give(&top.join(".git"));
        }),
        ("the folder that a file names", &|top| {
            fs::rename(top.join(".git"), top.join("real")).unwrap();
            fs::write(top.join(".git"), "gitdir: real\n").unwrap();
            give(&top.join("real"));
        }),
        ("a link to it", &|top| {
            fs::rename(top.join(".git"), top.join("real")).unwrap();
            symlink("real", top.join(".git")).unwrap();
            give(&top.join(".git"));
        }),
        ("the name of the common folder", &|top| {
            fs::write(top.join(".git/commondir"), ".\n").unwrap();
            give(&top.join(".git/commondir"));
        }),
    ];
    for (what, prepare) in prepare {
        let (broker, place) = (Broker::start(), folder());
        let (top, work) = (place.path().join("theirs"), place.path().join("theirs/work"));
        git::repository(place.path()); // this user's own, around it
        git::repository(&top);
        git(&top, &["checkout", "-q", "-b", "obey-me"]);
        fs::create_dir(&work).unwrap();
        prepare(&top);
        let mut session = session(&broker, &work);
        assert_eq!(shown(&mut session), (Value::Null, Value::Null), "{what}");
        assert_eq!(summary(&broker), "In work.", "{what}");
        let legacy = broker.http().post("/list-peers", &json!({"scope": "machine", "cwd": "/", "git_root": null})).json();
        assert_eq!(legacy[0]["git_root"], Value::Null, "{what}");
    }
}

#[test]
fn another_users_head_shows_no_branch() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can give files to another user");
    }
    let (broker, place) = (Broker::start(), folder());
    let top = place.path().join("shared");
    git::repository(&top);
    let mut before = session(&broker, &top);
    assert_eq!(shown(&mut before), (json!("shared"), json!("main")));
    fs::write(top.join(".git/HEAD"), "ref: refs/heads/obey-me\n").unwrap();
    chown(top.join(".git/HEAD"), OTHER, OTHER).unwrap();
    assert_eq!(shown(&mut before), (json!("shared"), Value::Null));
    assert_eq!(shown(&mut session(&broker, &top)), (json!("shared"), Value::Null));
}

#[test]
fn sudo_shows_the_repositories_of_its_user() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can give files to another user");
    }
    let (broker, place) = (Broker::start(), folder());
    let top = place.path().join("theirs");
    git::repository(&top);
    assert!(Command::new("chown").args(["-R", "65534"]).arg(&top).status().unwrap().success());
    let env = vec![("SUDO_UID".to_owned(), "65534".to_owned())];
    let session = Start { broker: &broker, directory: &top, session_id: "", delivery: "pull", env }.go();
    assert_eq!(summary(&broker), "In theirs on branch main. Last commit: first commit.");
    drop(session);
}

/// A program that leaves a mark when it runs.
fn trap(place: &Path, name: &str) -> String {
    let (program, mark) = (place.join(name), place.join(format!("ran-{name}")));
    fs::write(&program, format!("#!/bin/sh\necho \"$0\" \"$@\" >>'{}'\n", mark.display())).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    program.to_str().unwrap().to_owned()
}

/// The traps that ran.
fn ran(place: &Path) -> Vec<String> {
    let names = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("ran-")).collect()
}

/// Changes files so that git must look into them: neither their length nor the second changes.
fn change(files: &[PathBuf]) {
    for file in files {
        let text = fs::read_to_string(file).unwrap().replace('o', "0");
        fs::write(file, text).unwrap();
    }
}

#[test]
fn no_program_of_a_repository_starts() {
    let (broker, place) = (Broker::start(), folder());
    let (work, tool) = (place.path().join("engine"), place.path().join("tool"));
    git::repository(&tool);
    git::repository(&work);
    git(&work, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../tool", "vendor"]);
    fs::write(work.join(".gitattributes"), "README filter=one diff=evil\n*.rs filter=two\n*.c filter=a.b\n").unwrap();
    for (name, lines) in [("a.rs", 1), ("b.c", 1), ("old", 40)] {
        fs::write(work.join(name), "hello\n".repeat(lines)).unwrap();
    }
    git(&work, &["add", "."]);
    git(&work, &["commit", "-q", "-m", "second commit"]);
    // A renamed file, whose old content is yet to be fetched.
    let old = git::output(&work, &["rev-parse", "HEAD:old"]);
    git(&work, &["mv", "old", "new"]);
    fs::write(work.join("new"), "hello\n".repeat(39) + "hallo\n").unwrap();
    git(&work, &["commit", "-q", "-a", "-m", "rename"]);
    let (folder, file) = old.trim().split_at(2);
    fs::remove_file(work.join(format!(".git/objects/{folder}/{file}"))).unwrap();
    sign(&work);

    let set = |repository: &Path, key: &str, trap_name: &str| {
        git(repository, &["config", key, &trap(place.path(), trap_name)]);
    };
    set(&work, "filter.one.clean", "clean");
    set(&work, "filter.two.process", "process");
    set(&work, "filter.a.b.clean", "dotted");
    set(&work, "core.fsmonitor", "fsmonitor");
    set(&work, "core.pager", "pager");
    set(&work, "gpg.program", "gpg");
    set(&work, "diff.evil.textconv", "textconv");
    set(&work, "diff.evil.command", "command");
    set(&work, "diff.external", "external");
    set(&work, "remote.origin.uploadpack", "uploadpack");
    set(&work.join("vendor"), "filter.three.clean", "submodule");
    set(&work.join("vendor"), "core.fsmonitor", "submodule-fsmonitor");
    fs::rename(trap(place.path(), "post-index-change"), work.join(".git/hooks/post-index-change")).unwrap();
    for (key, value) in [
        ("filter.one.required", "true"),
        ("filter.two.required", "true"),
        ("log.showSignature", "true"),
        ("status.submoduleSummary", "true"),
        ("remote.origin.url", tool.to_str().unwrap()),
        ("remote.origin.promisor", "true"),
        ("remote.origin.partialCloneFilter", "blob:none"),
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "origin"),
    ] {
        git(&work, &["config", key, value]);
    }
    fs::create_dir_all(git_dir(&work.join("vendor")).join("info")).unwrap();
    fs::write(git_dir(&work.join("vendor")).join("info/attributes"), "* filter=three\n").unwrap();
    change(&["README", "a.rs", "b.c", "vendor/README"].map(|name| work.join(name)));

    let _session = session(&broker, &work);
    let expected = "In engine on branch main. Last commit: signed. 3 files changed: README, a.rs, b.c.";
    eventually("the summary has git's facts", || (summary(&broker) == expected).then_some(()));
    assert_eq!(ran(place.path()), [""; 0]);

    // Without such care they run.
    git::try_git(&work, &["status"]); // ends with the first filter that does not answer
    git::try_git(&work, &["-c", "filter.two.process=", "-c", "filter.two.required=false", "status"]);
    git::try_git(&work, &["log"]);
    git::try_git(&work, &["log", "--name-only", "--format="]);
    for name in ["clean", "process", "dotted", "fsmonitor", "submodule", "gpg", "uploadpack", "post-index-change"] {
        assert!(ran(place.path()).contains(&format!("ran-{name}")), "{name} is no trap: {:?}", ran(place.path()));
    }
}

/// Puts a commit on top whose signature a program would have to check.
fn sign(work: &Path) {
    let [tree, parent] = ["HEAD^{tree}", "HEAD"].map(|name| git::output(work, &["rev-parse", name]));
    let by = "Test <test@example.org> 1700000000 +0000";
    let signature = "-----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----";
    let commit = format!("tree {tree}parent {parent}author {by}\ncommitter {by}\ngpgsig {signature}\n\nsigned\n");
    let file = work.join(".git/commit");
    fs::write(&file, commit).unwrap();
    let id = git::output(work, &["hash-object", "-t", "commit", "-w", file.to_str().unwrap()]);
    git(work, &["update-ref", "HEAD", id.trim()]);
}

#[test]
fn git_is_not_asked_where_filters_would_run() {
    let many = |number: usize| format!("[filter \"x{number}\"]\nclean =\n").into_bytes();
    for (name, more) in [(&b"a=b"[..], 0), (b"\xff", 0), (b"zzz", 6_000)] {
        let (broker, place) = (Broker::start(), folder());
        let work = place.path().join("engine");
        git::repository(&work);
        fs::write(work.join(".gitattributes"), [b"* filter=", name].concat()).unwrap();
        let trap = trap(place.path(), "clean");
        let mut config = fs::read(work.join(".git/config")).unwrap();
        config.extend((0..more).flat_map(many));
        config.extend([b"[filter \"", name, b"\"]\nclean = ", trap.as_bytes(), b"\n"].concat());
        fs::write(work.join(".git/config"), config).unwrap();
        change(&[work.join("README")]);
        let session = session(&broker, &work);
        assert_eq!(summary(&broker), "In engine on branch main.");
        assert!(session.log().contains("filters cannot be turned off"), "{}", session.log());
        assert_eq!(ran(place.path()), [""; 0]);
        git::try_git(&work, &["status"]);
        assert_eq!(ran(place.path()), ["ran-clean"], "it is a trap");
    }
}

#[test]
fn reftable_repositories_show_their_branch() {
    let (broker, place) = (Broker::start(), folder());
    let top = place.path().join("engine");
    fs::create_dir(&top).unwrap();
    for (format, hash) in [("sha1", "engine"), ("sha256", "engine-256")] {
        let top = place.path().join(hash);
        fs::create_dir_all(&top).unwrap();
        git(&top, &["init", "-q", "--ref-format=reftable", &format!("--object-format={format}")]);
        git(&top, &["commit", "-q", "--allow-empty", "-m", "first"]);
        git(&top, &["worktree", "add", "-q", &format!("../{hash}-work"), "-b", "elsewhere"]);
        let (mut here, mut there) = (session(&broker, &top), session(&broker, &place.path().join(format!("{hash}-work"))));
        assert_eq!(shown(&mut there), (json!(hash), json!("elsewhere")));
        assert_eq!(shown(&mut here), (json!(hash), json!("main")));
        for number in 0..300 {
            git(&top, &["update-ref", &format!("refs/heads/many/{number}"), "HEAD"]);
        }
        for (change, branch) in [
            ("switch -q -c feature/login", json!("feature/login")),
            ("update-ref AAA_HEAD HEAD", json!("feature/login")),
            ("switch -q --detach", Value::Null),
            ("switch -q main", json!("main")),
            ("pack-refs --all", json!("main")),
            ("branch -q -m main trunk", json!("trunk")),
        ] {
            git(&top, &change.split(' ').collect::<Vec<_>>());
            assert_eq!(shown(&mut here).1, branch, "{change}");
            assert_eq!(shown(&mut there).1, "elsewhere", "{change}");
        }
    }
}

#[test]
fn hidden_text_in_a_repository_is_made_visible() {
    let (broker, place) = (Broker::start(), folder());
    let work = place.path().join("shop\u{202e}api");
    git::repository(&work);
    git(&work, &["checkout", "-q", "-b", "fix\u{e0041}\u{202e}"]);
    git(&work, &["commit", "-q", "--allow-empty", "-m", "hello\u{1b}[2J\u{e0042}"]);
    fs::write(work.join("new\u{7}\u{200b}"), "").unwrap();
    let mut session = session(&broker, &work);
    assert_eq!(shown(&mut session), (json!("shop\\u{202e}api"), json!("fix\\u{e0041}\\u{202e}")));
    assert_eq!(
        summary(&broker),
        "In shop\\u{202e}api on branch fix\\u{e0041}\\u{202e}. Last commit: hello\\u{1b}[2J\\u{e0042}. \
         1 file changed: new\\u{7}\\u{200b}."
    );
}

#[test]
fn a_dead_mount_holds_up_nobody() {
    let place = folder();
    let Some(_dead) = DeadMount::at(&place.path().join("work/.git")) else { return };
    let mut broker = Broker::start();
    let work = place.path().join("work");
    let mut session = session(&broker, &work);
    assert_eq!(shown(&mut session), (Value::Null, Value::Null));
    assert_eq!(summary(&broker), "In work.");

    let http = broker.http();
    let heads = [work.join(".git/HEAD"), place.path().join("HEAD")];
    fs::write(&heads[1], "ref: refs/heads/new\n").unwrap();
    let _streams = heads.each_ref().map(|head| {
        let git = json!({"commonDir": place.path(), "head": head, "repo": "engine", "branch": "old"});
        let instance = head.parent().unwrap().file_name().unwrap().to_str().unwrap().replace('.', "-");
        Peer::register(&http, &instance, json!({"git": git, "cwd": head})).follow(&http)
    });
    for _ in 0..5 {
        let started = Instant::now();
        let peers = http.get("/v1/peers?scope=machine").json()["peers"].clone();
        assert!(started.elapsed() < Duration::from_secs(3), "the list took {:?}", started.elapsed());
        let branches: BTreeMap<PathBuf, Value> = peers
            .as_array()
            .unwrap()
            .iter()
            .map(|peer| (peer["cwd"].as_str().unwrap().into(), peer["gitBranch"].clone()))
            .collect();
        assert_eq!((&branches[&heads[0]], &branches[&heads[1]]), (&json!("old"), &json!("new")));
    }
    let threads = fs::read_dir(format!("/proc/{}/task", broker.pid())).unwrap();
    let name = |thread: &fs::DirEntry| fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
    let probes = threads.filter(|thread| name(thread.as_ref().unwrap()) == "probe\n").count();
    assert!((1..=2).contains(&probes), "{probes} threads hang");
    assert!(session.close().success());
    assert!(broker.terminate().success());
}
