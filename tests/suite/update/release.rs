//! Making a release: the compiled-in keys and the script that packs and signs.

use super::{
    CURRENT, Ended, Installed, ended,
    server::{NEWER, PROGRAMS, Server, archive_name, key, program, sum},
};
use crate::support::folder;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn program_with_an_invalid_key_does_not_compile() {
    let source = fs::read_to_string(project().join("src/admin/update/keys.rs")).unwrap();
    let place = folder();
    let compile = |source: &str, key: &[u8]| {
        fs::write(place.path().join("release.pub"), key).unwrap();
        let own = place.path().join("release.pub").display().to_string();
        let source = source.replace("../../../packaging/release/keys/release.pub", &own);
        fs::write(place.path().join("keys.rs"), source).unwrap();
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
        rustc.args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "--out-dir"]).arg(place.path());
        ended(rustc.arg(place.path().join("keys.rs")))
    };
    let built = compile(&source, &[7; 32]);
    assert_eq!(built.code, 0, "{}", built.err);
    let (start, list) = source.split_once("&[*").unwrap();
    let (_, end) = list.split_once("];").unwrap();
    let empty = compile(&format!("{start}&[];{end}"), &[7; 32]);
    assert!(empty.code != 0 && empty.err.contains("a program that trusts no key would take any archive"), "{}", empty.err);
    let short = compile(&source, &[7; 31]);
    assert!(short.code != 0 && short.err.contains("32"), "{}", short.err);
}

#[test]
fn every_key_in_the_folder_is_built_in() {
    let source = fs::read_to_string(project().join("src/admin/update/keys.rs")).unwrap();
    let files: Vec<_> = fs::read_dir(project().join("packaging/release/keys")).unwrap().map(Result::unwrap).collect();
    for file in &files {
        let name = format!("packaging/release/keys/{}", file.file_name().display());
        assert!(source.contains(&format!("include_bytes!(\"../../../{name}\")")), "{name}");
    }
    assert_eq!(source.matches("include_bytes!").count(), files.len());
    let read = |path: &Path| <[u8; 32]>::try_from(fs::read(path).unwrap()).unwrap();
    let keys: Vec<_> = files.iter().map(|file| read(&file.path())).collect();
    // The keys are read before the file is opened.
    let error = self_update::verify_signature("/nonexistent/x.tar.gz", &keys).unwrap_err();
    assert!(matches!(error, self_update::Error::Io(_)), "{error}");
}

#[test]
fn programs_print_their_name_and_version() {
    let built = [env!("CARGO_BIN_EXE_claude-peers"), env!("CARGO_BIN_EXE_claude-peersd"), env!("CARGO_BIN_EXE_claude-peers-mcp")];
    for (name, program) in PROGRAMS.into_iter().zip(built) {
        let said = ended(Command::new(program).arg("--version"));
        assert_eq!((said.code, said.out), (0, format!("{name} {CURRENT}\n")));
    }
}

/// The path of `zipsign`, which signs releases.
fn zipsign() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("zipsign")).find(|program| program.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: zipsign, which signs releases, is not installed");
    }
    found
}

#[test]
fn output_of_the_release_script_installs() {
    if zipsign().is_none() {
        return;
    }
    let installed = Installed::new();
    let place = folder();
    let [programs, out] = ["programs", "out"].map(|name| place.path().join(name));
    fs::create_dir(&programs).unwrap();
    for name in PROGRAMS {
        fs::write(programs.join(name), program(name, NEWER).2).unwrap();
    }
    // Two keys, as during a key rotation.
    let secrets = [2, 1].map(|byte| {
        let secret = place.path().join(format!("{byte}.key"));
        fs::write(&secret, key(byte).to_keypair_bytes()).unwrap();
        secret
    });
    let archive = |target: &str, programs: &Path| {
        let mut script = Command::new(project().join("packaging/release/archive"));
        ended(script.args([NEWER, target]).args([programs, &out]).args(&secrets))
    };
    let target = self_update::get_target();
    for target in ["sparc64-unknown-netbsd", target] {
        let made = archive(target, &programs);
        assert_eq!((made.code, made.err.as_str()), (0, ""), "{}", made.out);
    }
    let name = archive_name(NEWER);
    let [packed, sums] = [&*name, "SHA256SUMS"].map(|name| fs::read(out.join(name)).unwrap());
    assert_eq!(String::from_utf8_lossy(&sums).lines().count(), 2, "a line for each archive");
    let server = Server::start();
    server.release_exactly(NEWER, &[(name.clone(), packed.clone()), ("SHA256SUMS".to_owned(), sums)]);
    let Ended { code, out: said, err } = installed.update(&server, &[]);
    assert_eq!((code, err.as_str()), (0, ""), "{said}");
    assert_eq!(fs::read(installed.program()).unwrap(), program("claude-peers", NEWER).2);

    // Packing is reproducible, and an incomplete set of programs gives no archive.
    fs::remove_file(out.join(&name)).unwrap();
    assert_eq!(archive(target, &programs).code, 0);
    assert!(fs::read(out.join(&name)).unwrap() == packed);
    fs::remove_file(programs.join("claude-peersd")).unwrap();
    fs::remove_file(out.join(&name)).unwrap();
    assert_ne!(archive(target, &programs).code, 0);
    assert!(!out.join(&name).exists());
}

/// It replaces `{ name }` and the like in the addresses of `Cargo.toml`.
#[test]
fn cargo_binstall_finds_the_archives() {
    let manifest: toml::Table = fs::read_to_string(project().join("Cargo.toml")).unwrap().parse().unwrap();
    let package = &manifest["package"];
    let metadata = &package["metadata"]["binstall"];
    let filled = |template: &str, program: &str| {
        let text = metadata[template].as_str().unwrap().to_owned();
        let (name, repository) = (package["name"].as_str().unwrap(), package["repository"].as_str().unwrap());
        let values = [("name", name), ("repo", repository), ("version", NEWER), ("target", self_update::get_target())];
        values
            .into_iter()
            .chain([("bin", program), ("binary-ext", "")])
            .fold(text, |text, (word, value)| text.replace(&format!("{{ {word} }}"), value))
    };
    let release = format!("https://github.com/claude-peers/claude-peers/releases/download/v{NEWER}");
    assert_eq!(filled("pkg-url", ""), format!("{release}/{}", archive_name(NEWER)));
    assert_eq!(filled("pkg-fmt", ""), "tgz");
    for program in PROGRAMS {
        assert_eq!(filled("bin-dir", program), program, "the programs are at the top of the archive");
    }
}

#[test]
fn formula_names_the_archive_and_its_checksum() {
    let place = folder();
    let name = format!("claude-peers-{NEWER}.tar.gz");
    let archive = place.path().join(&name);
    fs::write(&archive, "the source").unwrap();
    let formula = |version: &str| ended(Command::new(project().join("packaging/homebrew/formula")).arg(version).arg(&archive));
    let made = formula(NEWER);
    assert_eq!((made.code, made.err.as_str()), (0, ""), "{}", made.out);
    let url = format!("https://github.com/claude-peers/claude-peers/releases/download/v{NEWER}/{name}");
    let checksum = sum(b"the source", "");
    let lines = format!("  url \"{url}\"\n  sha256 \"{}\"\n  license", checksum.trim_end());
    assert!(made.out.contains(&lines), "{}", made.out);
    let other = formula("1.2.3");
    assert!(other.code != 0 && other.err.contains("claude-peers-1.2.3.tar.gz"), "{}", other.err);
}
