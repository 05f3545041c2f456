//! The macOS installer package, built with Linux tools and unpacked again to check its files, owners and scripts.

use crate::support::folder;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

const BUILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/macos/build-pkg");
const POSTINSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/macos/scripts/postinstall");

/// The mode and path below `/` of everything that is installed.
const PAYLOAD: [(&str, &str); 34] = [
    ("drwxr-xr-x", "."),
    ("drwxr-xr-x", "usr"),
    ("drwxr-xr-x", "usr/local"),
    ("drwxr-xr-x", "usr/local/bin"),
    ("-rwxr-xr-x", "usr/local/bin/claude-peers"),
    ("-rwxr-xr-x", "usr/local/bin/claude-peers-mcp"),
    ("-rwxr-xr-x", "usr/local/bin/claude-peersd"),
    ("drwxr-xr-x", "usr/local/share"),
    ("drwxr-xr-x", "usr/local/share/bash-completion"),
    ("drwxr-xr-x", "usr/local/share/bash-completion/completions"),
    ("-rw-r--r--", "usr/local/share/bash-completion/completions/claude-peers"),
    ("drwxr-xr-x", "usr/local/share/claude-peers"),
    ("drwxr-xr-x", "usr/local/share/claude-peers/plugin"),
    ("drwxr-xr-x", "usr/local/share/claude-peers/plugin/.claude-plugin"),
    ("-rw-r--r--", "usr/local/share/claude-peers/plugin/.claude-plugin/marketplace.json"),
    ("drwxr-xr-x", "usr/local/share/claude-peers/plugin/peers"),
    ("drwxr-xr-x", "usr/local/share/claude-peers/plugin/peers/.claude-plugin"),
    ("-rw-r--r--", "usr/local/share/claude-peers/plugin/peers/.claude-plugin/plugin.json"),
    ("-rw-r--r--", "usr/local/share/claude-peers/plugin/peers/.mcp.json"),
    ("-rw-r--r--", "usr/local/share/claude-peers/plugin/peers/README.md"),
    ("drwxr-xr-x", "usr/local/share/claude-peers/plugin/peers/hooks"),
    ("-rw-r--r--", "usr/local/share/claude-peers/plugin/peers/hooks/hooks.json"),
    ("drwxr-xr-x", "usr/local/share/doc"),
    ("drwxr-xr-x", "usr/local/share/doc/claude-peers"),
    ("-rw-r--r--", "usr/local/share/doc/claude-peers/LICENSE"),
    ("drwxr-xr-x", "usr/local/share/fish"),
    ("drwxr-xr-x", "usr/local/share/fish/vendor_completions.d"),
    ("-rw-r--r--", "usr/local/share/fish/vendor_completions.d/claude-peers.fish"),
    ("drwxr-xr-x", "usr/local/share/man"),
    ("drwxr-xr-x", "usr/local/share/man/man1"),
    ("-rw-r--r--", "usr/local/share/man/man1/claude-peers.1"),
    ("drwxr-xr-x", "usr/local/share/zsh"),
    ("drwxr-xr-x", "usr/local/share/zsh/site-functions"),
    ("-rw-r--r--", "usr/local/share/zsh/site-functions/_claude-peers"),
];

/// Small stand-ins for the programs, with the output that the package build asks for.
fn programs() -> TempDir {
    let bin = folder();
    let cli = r#"case $1 in manual) echo "the manual" >"$2/claude-peers.1" ;; completions) echo "for $2" ;; esac"#;
    for (program, lines) in [("claude-peers", cli), ("claude-peersd", ":"), ("claude-peers-mcp", ": mcp")] {
        script(&bin.path().join(program), lines);
    }
    bin
}

fn script(path: &Path, lines: &str) {
    fs::write(path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn build(bin: &Path, version: &str, output: &Path) -> Output {
    let words = ["--bin-dir".as_ref(), bin.as_os_str(), "--version".as_ref(), version.as_ref(), "--output".as_ref()];
    Command::new(BUILD).args(words).arg(output).output().unwrap()
}

/// Builds and unpacks the package: the unpacked folder, its parent and the programs; `None` if a tool is missing.
fn unpacked() -> Option<(PathBuf, TempDir, TempDir)> {
    if let Some(missing) = ["bsdtar", "cpio", "xmllint"].into_iter().find(|tool| !there(tool)) {
        eprintln!("SKIPPED: {missing} is not installed (Debian: libarchive-tools, cpio, libxml2-utils)");
        return None;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can build a package whose files belong to root");
        return None;
    }
    let (bin, place) = (programs(), folder());
    let package = place.path().join("claude-peers.pkg");
    let built = build(bin.path(), "1.2.3", &package);
    assert!(built.status.success(), "{built:?}");
    let out = place.path().join("unpacked");
    fs::create_dir(&out).unwrap();
    run(Command::new("bsdtar").arg("-xf").arg(&package).arg("-C").arg(&out));
    Some((out, place, bin))
}

fn there(program: &str) -> bool {
    Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", program]).status().unwrap().success()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The mode, owner and path of everything in one of the package's archives.
fn listed(archive: &Path) -> Vec<(String, String, String)> {
    let list = run(Command::new("sh").args(["-c", "gzip -dc \"$0\" | cpio -itv --numeric-uid-gid --quiet"]).arg(archive));
    let fields = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields[0].to_owned(), format!("{}/{}", fields[2], fields[3]), fields.last().unwrap().to_string())
    };
    list.lines().map(fields).collect()
}

#[test]
fn package_installs_files_owned_by_root() {
    let Some((package, place, bin)) = unpacked() else { return };
    let payload = package.join("claude-peers.pkg/Payload");
    let expected = PAYLOAD.map(|(mode, path)| (mode.to_owned(), "0/0".to_owned(), path.to_owned()));
    assert_eq!(listed(&payload), expected);

    let installed = place.path().join("installed");
    fs::create_dir(&installed).unwrap();
    run(Command::new("bsdtar").arg("-xf").arg(&payload).arg("-C").arg(&installed));
    for program in ["claude-peers", "claude-peersd", "claude-peers-mcp"] {
        let read = |folder: PathBuf| fs::read(folder.join(program)).unwrap();
        assert_eq!(read(installed.join("usr/local/bin")), read(bin.path().to_owned()), "{program}");
    }
    for (file, text) in [
        ("man/man1/claude-peers.1", "the manual\n"),
        ("bash-completion/completions/claude-peers", "for bash\n"),
        ("zsh/site-functions/_claude-peers", "for zsh\n"),
        ("fish/vendor_completions.d/claude-peers.fish", "for fish\n"),
    ] {
        assert_eq!(fs::read_to_string(installed.join("usr/local/share").join(file)).unwrap(), text, "{file}");
    }
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/plugin");
    run(Command::new("diff").arg("-r").arg(plugin).arg(installed.join("usr/local/share/claude-peers/plugin")));
}

#[test]
fn package_runs_its_script_and_identifies_itself() {
    let Some((package, place, _bin)) = unpacked() else { return };
    let component = package.join("claude-peers.pkg");
    let script = |mode: &str, path: &str| (mode.to_owned(), "0/0".to_owned(), path.to_owned());
    assert_eq!(listed(&component.join("Scripts")), [script("drwxr-xr-x", "."), script("-rwxr-xr-x", "postinstall")]);

    // The values that the installer reads, from an XML parser.
    let info = component.join("PackageInfo");
    let distribution = package.join("Distribution");
    for (file, path, value) in [
        (&info, "/pkg-info/@identifier", "dev.claudepeers.pkg"),
        (&info, "/pkg-info/@version", "1.2.3"),
        (&info, "/pkg-info/@install-location", "/"),
        (&info, "/pkg-info/payload/@numberOfFiles", &PAYLOAD.len().to_string()),
        (&info, "/pkg-info/scripts/postinstall/@file", "./postinstall"),
        (&distribution, "//domains/@enable_anywhere", "true"),
        (&distribution, "//domains/@enable_currentUserHome", "false"),
        (&distribution, "//options/@hostArchitectures", "x86_64,arm64"),
        (&distribution, "//pkg-ref[@version]/@id", "dev.claudepeers.pkg"),
        (&distribution, "//pkg-ref[@version]", "#claude-peers.pkg"),
    ] {
        let found = run(Command::new("xmllint").args(["--nonet", "--xpath"]).arg(format!("string({path})")).arg(file));
        assert_eq!(found.trim_end(), value, "{path}");
    }
    // All files that the distribution shows exist.
    let shown = run(Command::new("xmllint").args(["--xpath", "//@file"]).arg(&distribution));
    let shown: Vec<_> = shown.split('"').skip(1).step_by(2).collect();
    assert_eq!(shown, ["readme.txt", "LICENSE.txt", "conclusion.txt"]);
    assert!(shown.iter().all(|file| package.join("Resources").join(file).is_file()));

    // Apple's tools expect a SHA-1 checksum of the table and no double compression.
    let bytes = fs::read(place.path().join("claude-peers.pkg")).unwrap();
    assert_eq!((&bytes[..4], &bytes[24..28]), (&b"xar!"[..], &1_u32.to_be_bytes()[..]));
    let payload = fs::read(component.join("Payload")).unwrap();
    assert!(bytes.windows(payload.len()).any(|window| window == payload));
}

#[test]
fn bill_of_materials_lists_installed_files() {
    let Some((package, _place, _bin)) = unpacked() else { return };
    let bom = package.join("claude-peers.pkg/Bom");
    if !there("mkbom") || !there("lsbom") {
        assert!(!bom.exists());
        eprintln!("SKIPPED: mkbom and lsbom are not installed (cargo install stuckliste-cli)");
        return;
    }
    let list = run(Command::new("lsbom").arg(&bom));
    let mut billed: Vec<_> = list
        .lines()
        .map(|line| {
            let fields: Vec<_> = line.split('\t').collect();
            (fields[0].to_owned(), fields[1].to_owned(), fields[2].to_owned())
        })
        .collect();
    billed.sort();
    let mode = |letters: &str| match letters {
        "drwxr-xr-x" => "40755",
        "-rwxr-xr-x" => "100755",
        _ => "100644",
    };
    let path = |path: &str| if path == "." { path.to_owned() } else { format!("./{path}") };
    assert_eq!(billed, PAYLOAD.map(|(letters, file)| (path(file), mode(letters).to_owned(), "0/0".to_owned())));
}

#[test]
fn failed_package_build_says_why() {
    let (bin, place) = (programs(), folder());
    let output = place.path().join("claude-peers.pkg");
    let refused = build(bin.path(), "1.2 & 3", &output);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the version 1.2 & 3 has other than"), "{refused:?}");

    fs::remove_file(bin.path().join("claude-peersd")).unwrap();
    let refused = build(bin.path(), "1.2.3", &output);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("claude-peersd; build it first"), "{refused:?}");

    let usage = Command::new(BUILD).args(["--version", "1.2.3"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("--bin-dir DIR"), "{usage:?}");
    assert!(!output.exists());
}

/// The commands that `postinstall` calls on a Mac. Stand-ins record how they are called.
fn postinstall(volume: &str, at_the_screen: &str, broken: bool) -> (Output, Vec<String>) {
    let place = folder();
    let log = place.path().join("calls");
    script(&place.path().join("stat"), &format!("echo {at_the_screen}"));
    script(&place.path().join("id"), "echo 501");
    script(
        &place.path().join("ps"),
        "printf '%s\\n' '  501 /usr/local/bin/claude-peersd' '502 /opt/claude-peersd' '503 /bin/sh'",
    );
    script(&place.path().join("launchctl"), &format!("echo \"$*\" >>\"$CALLS\"; exit {}", i32::from(broken)));
    let path = format!("{}:{}", place.path().display(), std::env::var("PATH").unwrap());
    let words = ["claude-peers.pkg", "/usr/local", volume, "/"];
    let output = Command::new(POSTINSTALL).args(words).env("PATH", path).env("CALLS", &log).output().unwrap();
    let calls = fs::read_to_string(log).unwrap_or_default();
    (output, calls.lines().map(str::to_owned).collect())
}

#[test]
fn installation_replaces_brokers_and_sets_up_the_user() {
    let ended = "kill SIGTERM gui/501/dev.claudepeers.broker";
    let set_up = "asuser 501 sudo -H -u alice /usr/local/bin/claude-peers setup";
    for (volume, user, broken, expected) in [
        ("/", "alice", false, &[ended, set_up][..]),
        ("/", "alice", true, &[ended, set_up]),
        ("/", "root", false, &[ended]),
        ("/", "_mbsetupuser", false, &[ended]),
        ("/Volumes/Other", "alice", false, &[]),
    ] {
        let (output, calls) = postinstall(volume, user, broken);
        assert!(output.status.success(), "the installation itself went well: {output:?}");
        assert_eq!(calls, expected, "{volume} {user}");
        let said = String::from_utf8_lossy(&output.stdout);
        let word = if broken { "run it again" } else { "run claude-peers setup later" };
        assert_eq!(said.contains(word), broken || (volume == "/" && user != "alice"), "{said}");
    }
}
