//! Who updates an installed program. A package manager updates its own; replacing its files would falsify its records.
//!
//! A package manager that is not installed owns nothing; one that cannot answer is a failure.

use crate::{
    console::exit::Problem,
    platform::call::{Call, CallFailed, quoted},
};
use std::{ffi::OsStr, fs, io, path::Path, time::Duration};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, PartialEq, Eq)]
pub struct Owner {
    who: String,
    pub command: String,
}

impl Owner {
    fn new(who: impl Into<String>, command: impl Into<String>) -> Self {
        Self { who: who.into(), command: command.into() }
    }

    pub fn refusal(&self, program: &Path) -> Problem {
        Problem::new(format!("{} belongs to {}", program.display(), self.who), format!("update it with: {}", self.command))
    }
}

/// None for a program that was copied there by hand.
pub async fn of(program: &Path) -> Result<Option<Owner>, Problem> {
    if program.components().any(|part| part.as_os_str() == "Cellar") {
        return Ok(Some(Owner::new("Homebrew", "brew upgrade claude-peers")));
    }
    if let Some(owner) = cargo(program)? {
        return Ok(Some(owner));
    }
    if let Some(package) = ask("dpkg", &["-S"], program).await?.and_then(|said| dpkg_owner(&said, program)) {
        let command = format!("sudo apt install --only-upgrade {package}");
        return Ok(Some(Owner::new(format!("the Debian package {package}"), command)));
    }
    if let Some(package) = ask("rpm", &["-qf", "--queryformat", "%{NAME}"], program).await? {
        return Ok(Some(Owner::new(format!("the RPM package {package}"), format!("sudo dnf upgrade {package}"))));
    }
    let said = ask("pkgutil", &["--file-info"], program).await?.unwrap_or_default();
    if let Some(package) = said.lines().find_map(|line| line.strip_prefix("pkgid: ")) {
        let command = concat!("the newest .pkg of ", env!("CARGO_PKG_REPOSITORY"), "/releases");
        return Ok(Some(Owner::new(format!("the installer package {package}"), command)));
    }
    let system = program.starts_with("/usr") && !program.starts_with("/usr/local");
    Ok(system.then(|| Owner::new("the system, under /usr", "the package manager that installed it")))
}

/// A manager's answer; none where it is not installed or says with exit code 1 that the program is not its own.
async fn ask(manager: &str, words: &[&str], program: &Path) -> Result<Option<String>, Problem> {
    // A folder on PATH that may not be entered makes starting a missing program fail with another error than "not found".
    let Ok(found) = which::which(manager) else { return Ok(None) };
    let words = words.iter().map(OsStr::new).chain([program.as_os_str()]);
    match Call::new(manager, found, words, PATIENCE).env("LC_ALL", "C").run().await {
        Err(CallFailed { code: Some(1), .. }) => Ok(None),
        said => said.map(Some).map_err(|error| unanswered(manager, &error.to_string())),
    }
}

/// Whether `cargo install` put `program` there: it keeps a record beside the folder of programs.
fn cargo(program: &Path) -> Result<Option<Owner>, Problem> {
    let Some(root) = program.parent().and_then(Path::parent) else { return Ok(None) };
    let record = root.join(".crates2.json");
    let broken = |e: &dyn std::fmt::Display| unanswered("cargo", &format!("reading {}: {e}", record.display()));
    let text = match fs::read_to_string(&record) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|e| broken(&e))?,
    };
    let known: serde_json::Value = serde_json::from_str(&text).map_err(|e| broken(&e))?;
    let mut packages = known["installs"].as_object().into_iter().flat_map(|installs| installs.keys());
    Ok(packages.find_map(|package| cargo_owner(package)))
}

/// Reads an entry such as `claude-peers 0.1.0 (path+file:///home/me/claude-peers)`, which says how to install it again.
fn cargo_owner(package: &str) -> Option<Owner> {
    let (_, source) = package.strip_prefix("claude-peers ")?.split_once(" (")?;
    let source = source.trim_end_matches(')');
    let how = match source.split_once('+') {
        Some(("path", url)) => format!("--path {}", quoted(url.strip_prefix("file://").unwrap_or(url))),
        Some(("git", url)) => format!("--git {}", quoted(url.split(['#', '?']).next().unwrap_or(url))),
        _ => "claude-peers".to_owned(),
    };
    Some(Owner::new("cargo", format!("cargo install --locked {how}")))
}

/// The package in an answer such as `claude-peers: /usr/bin/claude-peers`, the first one where several share the file.
fn dpkg_owner(said: &str, program: &Path) -> Option<String> {
    let ours = |line: &&str| line.split_once(": ").is_some_and(|(_, path)| Path::new(path) == program);
    let packages = said.lines().filter(|line| !line.starts_with("diversion ")).find(ours)?.split_once(": ")?.0;
    packages.split(", ").next().map(str::to_owned)
}

fn unanswered(manager: &str, why: &str) -> Problem {
    let what = format!("asking {manager} whether it installed this program: {}", why.trim());
    Problem::new(what, "nothing was changed; correct that, then try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_package_managers_are_read() {
        for (package, command) in [
            ("claude-peers 0.1.0 (registry+https://github.com/rust-lang/crates.io-index)", Some("claude-peers")),
            ("claude-peers 0.1.0 (path+file:///home/me/claude-peers)", Some("--path /home/me/claude-peers")),
            ("claude-peers 0.1.0 (git+https://a.example/cp?branch=main#0123abc)", Some("--git https://a.example/cp")),
            ("claude-peers-extra 0.1.0 (registry+https://example.org)", None),
        ] {
            let expected = command.map(|how| format!("cargo install --locked {how}"));
            assert_eq!(cargo_owner(package).map(|owner| owner.command), expected);
        }
        for (said, package) in [
            ("claude-peers: /opt/bin/claude-peers\n", Some("claude-peers")),
            ("a:arm64, b: /opt/bin/claude-peers\n", Some("a:arm64")),
            ("diversion by x from: /opt/bin/claude-peers\nx: /opt/bin/claude-peers-mcp\n", None),
            ("", None),
        ] {
            assert_eq!(dpkg_owner(said, Path::new("/opt/bin/claude-peers")).as_deref(), package);
        }
    }

    #[tokio::test]
    async fn some_places_tell_their_package_manager() {
        for (path, command) in [
            ("/opt/homebrew/Cellar/claude-peers/0.1.0/bin/claude-peers", Some("brew upgrade claude-peers")),
            ("/usr/lib/no-such-package/claude-peers", Some("the package manager that installed it")),
            ("/usr/local/no-such-folder/claude-peers", None),
        ] {
            let owner = of(Path::new(path)).await.expect("an answer");
            assert_eq!(owner.map(|owner| owner.command).as_deref(), command, "{path}");
        }
    }
}
