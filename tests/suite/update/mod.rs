//! `claude-peers update` replaces the installed programs with a signed release, and with nothing else.

mod folder;
mod release;
mod rights;
mod server;

use crate::support::{folder as temporary, unused_port};
use serde_json::{Value, json};
use server::{Entry, NEWER, PROGRAMS, Server, archive_name, key, pack, program, programs, sign, sum};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};
use tar::EntryType;
use tempfile::TempDir;

const CURRENT: &str = env!("CARGO_PKG_VERSION");

/// A copy of the programs in its own folder, and the public key to trust.
struct Installed {
    place: TempDir,
    key: PathBuf,
}

/// The exit code and output of a command.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Installed {
    fn new() -> Self {
        let place = temporary();
        let bin = place.path().join("bin");
        fs::create_dir(&bin).unwrap();
        install(Path::new(env!("CARGO_BIN_EXE_claude-peers")), &bin.join("claude-peers"));
        for name in &PROGRAMS[1..] {
            fs::write(bin.join(name), format!("the old {name}")).unwrap();
        }
        let public = place.path().join("release.pub");
        fs::write(&public, key(1).verifying_key().to_bytes()).unwrap();
        Self { place, key: public }
    }

    fn bin(&self) -> PathBuf {
        self.place.path().join("bin")
    }

    fn program(&self) -> PathBuf {
        self.bin().join("claude-peers")
    }

    /// Overrides a system program of this name with a script.
    fn tool(&self, name: &str, script: &str) {
        let tools = self.place.path().join("tools");
        fs::create_dir_all(&tools).unwrap();
        let text = self.place.path().join(format!("{name}.sh"));
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        install(&text, &tools.join(name));
    }

    /// The update command with a clean environment except for PATH.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", self.place.path().join("tools").display());
        command.env_clear().env("PATH", path).env("HOME", self.place.path());
        // Without this, it would find the service manager of the user who runs the tests.
        command.env("XDG_RUNTIME_DIR", self.place.path()).arg("update").args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        ended(&mut self.command(arguments))
    }

    /// Updates from `server`, trusting this installation's key.
    fn update(&self, server: &Server, arguments: &[&str]) -> Ended {
        let own = ["--from", &server.url, "--key", self.key.to_str().unwrap()];
        self.run(&[&own, arguments].concat())
    }

    /// All files and folders of the installation with their content.
    fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                    found.insert(path, Vec::new());
                } else {
                    found.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(self.place.path(), &mut found);
        found
    }

    /// Asserts that an update fails with these words and leaves every file unchanged.
    fn refuses(&self, server: &Server, words: &str) {
        let before = self.content();
        let Ended { code, out, err } = self.update(server, &[]);
        assert_eq!((code, out.as_str()), (1, ""), "{words}: {err}");
        assert!(err.starts_with("error: ") && err.contains(words) && err.contains("\n help: "), "{words}: {err}");
        assert!(self.content() == before, "{words}: something has changed");
    }
}

/// Copies a program with another process. A file that this process writes cannot be run while a child of another test has
/// inherited the open file.
fn install(from: &Path, to: &Path) {
    assert!(Command::new("install").args(["-m", "755"]).args([from, to]).status().unwrap().success());
}

fn ended(command: &mut Command) -> Ended {
    let ran = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: ran.status.code().unwrap(), out: text(ran.stdout), err: text(ran.stderr) }
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{e}: {ended:?}"))
}

/// A server with a newer release of these entries, correctly signed.
fn release_of(entries: &[Entry]) -> Server {
    let (server, name) = (Server::start(), archive_name(NEWER));
    server.release(NEWER, &[(name.clone(), sign(&pack(entries), &key(1), &name))]);
    server
}

#[test]
fn update_replaces_all_three_programs() {
    let (installed, server) = (Installed::new(), Server::with_release(NEWER, &key(1)));
    let before = installed.content();
    let Ended { code, out, err } = installed.update(&server, &[]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for words in [
        format!("claude-peers {NEWER} is installed; it was {CURRENT}."),
        server.url.clone(),
        format!("{}; checksum and signature are valid", archive_name(NEWER)),
        installed.program().display().to_string(),
        "There is no service manager here: a running broker keeps the old program".to_owned(),
        "Running sessions keep their old MCP server".to_owned(),
    ] {
        assert!(out.contains(&words), "{words}: {out}");
    }
    for name in PROGRAMS {
        let path = installed.bin().join(name);
        assert_eq!(ended(Command::new(&path).arg("--version")).out, format!("{name} {NEWER}\n"));
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o755);
    }
    assert!(installed.content().keys().eq(before.keys()), "nothing is left over");
    let heads = server.heads();
    assert_eq!(heads.len(), 3, "the release, the sums, the archive: {heads:?}");
    assert!(heads[1..].iter().all(|head| head.to_ascii_lowercase().contains("accept: application/octet-stream")), "{heads:?}");
}

#[test]
fn managed_broker_is_restarted() {
    let server = Server::with_release(NEWER, &key(1));
    for (active, result, code, state, words) in [
        ("active", 0, 0, "restarted", "The broker was restarted with the new program."),
        ("inactive", 0, 0, "notRunning", "The broker was not running; it starts with the new program."),
        ("active", 1, 1, "failed", "To restart it: systemctl --user try-restart claude-peers.service"),
    ] {
        for json_too in [false, true] {
            let installed = Installed::new();
            fs::create_dir(installed.place.path().join("systemd")).unwrap();
            fs::write(installed.place.path().join("systemd/private"), "").unwrap();
            let asked = installed.place.path().join("asked");
            let unit = format!("Id=claude-peers.service\\nLoadState=loaded\\nActiveState={active}\\n");
            installed.tool(
                "systemctl",
                &format!(
                    "echo \"$@\" >>{}; [ \"$2\" != show ] || printf '{unit}'; [ \"$2\" != try-restart ] || exit {result}",
                    asked.display()
                ),
            );
            let ended = installed.update(&server, if json_too { &["--json"] } else { &[] });
            assert_eq!((ended.code, ended.err.as_str()), (code, ""), "{ended:?}");
            if json_too {
                assert_eq!((&json(&ended)["updated"], &json(&ended)["broker"]["state"]), (&json!(true), &json!(state)));
            } else {
                assert!(
                    ended.out.contains(words) && ended.out.contains(&format!("claude-peers {NEWER} is installed")),
                    "{ended:?}"
                );
            }
            let asked = fs::read_to_string(asked).unwrap();
            assert_eq!(asked.contains("--user try-restart claude-peers.service"), active == "active", "{asked}");
        }
    }
}

#[test]
fn update_prints_json_for_scripts() {
    let (installed, server) = (Installed::new(), Server::with_release(NEWER, &key(1)));
    let updated = installed.update(&server, &["--json", "--version", &format!("v{NEWER}")]);
    let answer = json(&updated);
    let paths = ["claude-peersd", "claude-peers-mcp", "claude-peers"].map(|name| installed.bin().join(name));
    assert_eq!(updated.code, 0, "{updated:?}");
    for (name, value) in [
        ("current", json!(CURRENT)),
        ("version", json!(NEWER)),
        ("newer", json!(true)),
        ("updated", json!(true)),
        ("from", json!(server.url)),
        ("archive", json!(archive_name(NEWER))),
        ("installed", json!(paths)),
        ("broker", json!({"state": "unmanaged"})),
    ] {
        assert_eq!(answer[name], value, "{answer}");
    }
}

#[test]
fn check_only_changes_nothing() {
    let (installed, server) = (Installed::new(), Server::with_release(NEWER, &key(2)));
    let before = installed.content();
    let checked = installed.update(&server, &["--check"]);
    assert_eq!((checked.code, checked.err.as_str()), (0, ""));
    let (url, key) = (&server.url, installed.key.display());
    let expected = format!(
        "claude-peers {NEWER} is available from {url}; {CURRENT} is installed.\n\
         To update: claude-peers update --from {url} --key {key}\n"
    );
    assert_eq!(checked.out, expected);
    let answer = json(&installed.update(&server, &["--check", "--json"]));
    assert_eq!((&answer["newer"], &answer["updated"], &answer["version"]), (&json!(true), &json!(false), &json!(NEWER)));
    assert!(installed.content() == before);
}

#[test]
fn wrong_signature_is_refused() {
    let (installed, name) = (Installed::new(), archive_name(NEWER));
    let good = pack(&programs(NEWER));
    let server = Server::start();
    let unsigned = "is not signed by a key that this program trusts";
    for (archive, words) in [
        (sign(&good, &key(2), &name), "no matching key/signature pair found"),
        (good.clone(), unsigned),
        // Signed by the right key, but for another version or platform.
        (sign(&good, &key(1), &archive_name("99.9.8")), unsigned),
        (sign(&good, &key(1), &format!("claude-peers-{NEWER}-sparc64-unknown-netbsd.tar.gz")), unsigned),
        // Changed after signing.
        ([&[0; 9], &sign(&good, &key(1), &name)[9..]].concat(), unsigned),
        (sign(&good, &key(1), &name)[..good.len() / 2].to_vec(), unsigned),
        (Vec::new(), unsigned),
    ] {
        server.release(NEWER, &[(name.clone(), archive)]);
        installed.refuses(&server, words);
    }
    // The built-in keys do not trust a mirror's own key.
    server.release(NEWER, &[(name.clone(), sign(&good, &key(1), &name))]);
    let refused = installed.run(&["--from", &server.url]);
    assert!(refused.code == 1 && refused.err.contains(unsigned), "{refused:?}");
}

#[test]
fn altered_release_is_refused() {
    let (installed, name) = (Installed::new(), archive_name(NEWER));
    let good = sign(&pack(&programs(NEWER)), &key(1), &name);
    let server = Server::start();
    let release = |assets: &[(&str, &[u8])]| {
        let assets: Vec<_> = assets.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect();
        server.release_exactly(NEWER, &assets);
    };
    let sums = sum(&good, &name);

    release(&[(&name, &good), ("SHA256SUMS", sum(b"another", &name).as_bytes())]);
    installed.refuses(&server, "as the release says");
    release(&[(&name, &good), ("SHA256SUMS", sum(&good, "another").as_bytes())]);
    installed.refuses(&server, "lists no SHA-256");
    release(&[(&name, &good)]);
    installed.refuses(&server, "has no file SHA256SUMS");
    release(&[("claude-peers-99.9.9-sparc64-unknown-netbsd.tar.gz", &good), ("SHA256SUMS", sums.as_bytes())]);
    installed.refuses(&server, self_update::get_target());
    release(&[(&name, &good[..good.len() / 2]), ("SHA256SUMS", sums.as_bytes())]);
    installed.refuses(&server, "the checksum of");
    release(&[(&name, &good), ("SHA256SUMS", sums.as_bytes())]);
    server.cut(&format!("/{name}"));
    installed.refuses(&server, &format!("downloading {name}"));
    server.serve("/repos/claude-peers/claude-peers/releases/latest", b"<html>".to_vec());
    installed.refuses(&server, "asking http://127.0.0.1");
    installed.refuses(&Server::start(), "has no release");
    let mut gone = Server::start();
    gone.url = format!("http://127.0.0.1:{}", unused_port());
    installed.refuses(&gone, "asking http://127.0.0.1");
}

#[test]
fn archive_must_hold_three_plain_files() {
    let installed = Installed::new();
    let with = |entry: Entry| {
        let mut entries = programs(NEWER);
        entries.retain(|Entry(name, ..)| entry.0 != *name && !entry.0.ends_with(&format!("/{name}")));
        entries.push(entry);
        release_of(&entries)
    };
    let link = |kind, target: &str| with(Entry("claude-peersd".to_owned(), kind, target.as_bytes().to_vec()));
    let secret = installed.place.path().join("release.pub").display().to_string();
    for (server, words) in [
        (with(program("../claude-peersd", NEWER)), "holds no usable claude-peersd"),
        (with(program("/claude-peersd", NEWER)), "holds no usable claude-peersd"),
        (with(program("bin/claude-peersd", NEWER)), "holds no usable claude-peersd"),
        (link(EntryType::Symlink, "claude-peers"), "holds no usable claude-peersd"),
        (link(EntryType::Symlink, &secret), "holds no usable claude-peersd"),
        (link(EntryType::Link, "claude-peers"), "holds no usable claude-peersd"),
        (link(EntryType::Link, &secret), "holds no usable claude-peersd"),
        (link(EntryType::Directory, ""), "holds no usable claude-peersd"),
        (link(EntryType::Fifo, ""), "the new claude-peersd is not usable here"),
        (with(program("claude-peers", "99.9.8")), "\"claude-peers 99.9.8\", not version 99.9.9"),
        (with(program("claude-peers-mcp", "99.9.8")), "\"claude-peers-mcp 99.9.8\", not version 99.9.9"),
        (
            with(Entry("claude-peers".to_owned(), EntryType::Regular, b"\x7fELF".to_vec())),
            "the new claude-peers is not usable here",
        ),
        (
            with(Entry("claude-peersd".to_owned(), EntryType::Regular, b"#!/bin/sh\necho 'no GLIBC_9.9' >&2; exit 1\n".to_vec())),
            "no GLIBC_9.9",
        ),
    ] {
        installed.refuses(&server, words);
    }

    // Other entries of an archive are ignored.
    let mut entries = programs(NEWER);
    entries.insert(0, program("../evil", NEWER));
    entries.insert(0, Entry("evil-link".to_owned(), EntryType::Symlink, b"/etc/passwd".to_vec()));
    let before = installed.content();
    let updated = installed.update(&release_of(&entries), &[]);
    assert_eq!(updated.code, 0, "{updated:?}");
    assert!(installed.content().keys().eq(before.keys()), "nothing was added");
}

#[test]
fn update_never_downgrades() {
    let installed = Installed::new();
    let before = installed.content();
    for version in [CURRENT, "0.0.1"] {
        let server = Server::with_release(version, &key(1));
        let same = installed.update(&server, &[]);
        assert_eq!((same.code, same.err.as_str()), (0, ""));
        assert!(same.out.contains(&format!("claude-peers {CURRENT} is up to date")), "{same:?}");
        let answer = json(&installed.update(&server, &["--json", "--check"]));
        assert_eq!((&answer["newer"], &answer["version"]), (&json!(false), &json!(version)));
    }
    let server = Server::with_release("0.0.1", &key(1));
    let older = installed.update(&server, &["--version", "0.0.1"]);
    assert_eq!((older.code, older.out.as_str()), (1, ""));
    assert!(older.err.contains(&format!("version 0.0.1 is older than {CURRENT}")), "{older:?}");
    // The server answers with another release than requested.
    let asked = installed.update(&server, &["--version", NEWER]);
    assert!(asked.code == 1 && asked.err.contains(&format!("has no release {NEWER}")), "{asked:?}");
    let other = json!({"tag_name": "v99.9.8", "created_at": "", "assets": []}).to_string();
    server.serve(&format!("/repos/claude-peers/claude-peers/releases/tags/v{NEWER}"), other.into_bytes());
    let asked = installed.update(&server, &["--version", NEWER]);
    assert!(asked.code == 1 && asked.err.contains("offers release 99.9.8"), "{asked:?}");
    assert!(installed.content() == before);
}
