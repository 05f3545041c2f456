//! Finds who updates an installed program. A package manager updates its own; replacing its files would falsify its records.
//!
//! A package manager that is not installed owns nothing; one that cannot answer is a failure.

use crate::{
    agents::files,
    console::Failure,
    platform::call::{Call, CallFailed, quoted},
};
use std::{ffi::OsStr, path::Path, time::Duration};

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Owner {
    who: String,
    pub command: String,
}

impl Owner {
    pub fn refusal(&self, program: &Path) -> Failure {
        Failure::local(format!("{} belongs to {}", program.display(), self.who), format!("update it with: {}", self.command))
    }
}

/// None if the program was copied there by hand.
pub async fn of(program: &Path) -> Result<Option<Owner>, Failure> {
    let owner = |who: &str, command: &str| Ok(Some(Owner { who: who.to_owned(), command: command.to_owned() }));
    if program.components().any(|part| part.as_os_str() == "Cellar") {
        return owner("Homebrew", "brew upgrade claude-peers");
    }
    if let Some(source) = cargo(program)? {
        return owner("cargo", &format!("cargo install --locked {source}"));
    }
    if let Some(package) = ask("dpkg", &["-S"], program).await?.as_deref().and_then(|said| dpkg_package(said, program)) {
        return owner(&format!("the Debian package {package}"), &format!("sudo apt install --only-upgrade {package}"));
    }
    if let Some(package) = ask("rpm", &["-qf", "--queryformat", "%{NAME}"], program).await? {
        return owner(&format!("the RPM package {package}"), &format!("sudo dnf upgrade {package}"));
    }
    let said = ask("pkgutil", &["--file-info"], program).await?.unwrap_or_default();
    if let Some(package) = said.lines().find_map(|line| line.strip_prefix("pkgid: ")) {
        let command = concat!("the newest .pkg of ", env!("CARGO_PKG_REPOSITORY"), "/releases");
        return owner(&format!("the installer package {package}"), command);
    }
    if program.starts_with("/usr") && !program.starts_with("/usr/local") {
        return owner("the system, under /usr", "the package manager that installed it");
    }
    Ok(None)
}

/// A manager's answer; none if it is not installed, or exits with 1 because the program is not its own.
async fn ask(manager: &str, words: &[&str], program: &Path) -> Result<Option<String>, Failure> {
    // If a folder on PATH may not be entered, starting a missing program fails with another error than "not found".
    let Ok(found) = which::which(manager) else { return Ok(None) };
    let words = words.iter().map(OsStr::new).chain([program.as_os_str()]);
    match Call::new(manager, found, words, PATIENCE).env("LC_ALL", "C").run().await {
        Err(CallFailed { code: Some(1), .. }) => Ok(None),
        said => said.map(Some).map_err(|error| unanswered(manager, &error.to_string())),
    }
}

/// The source of an earlier `cargo install` of `program`, which would install it again. Cargo keeps a record beside the folder of
/// programs.
fn cargo(program: &Path) -> Result<Option<String>, Failure> {
    let Some(root) = program.parent().and_then(Path::parent) else { return Ok(None) };
    let record = root.join(".crates2.json");
    let broken = |e: &dyn std::fmt::Display| unanswered("cargo", &format!("reading {}: {e}", record.display()));
    let Some(text) = files::read(&record).map_err(|e| unanswered("cargo", &e.to_string()))? else { return Ok(None) };
    let known: serde_json::Value = serde_json::from_str(&text).map_err(|e| broken(&e))?;
    let packages = known["installs"].as_object();
    Ok(packages.and_then(|packages| packages.keys().find_map(|package| cargo_source(package))))
}

/// Reads an entry such as `claude-peers 0.1.0 (path+file:///home/me/claude-peers)`.
fn cargo_source(package: &str) -> Option<String> {
    let (_, source) = package.strip_prefix("claude-peers ")?.split_once(" (")?;
    Some(match source.trim_end_matches(')').split_once('+') {
        Some(("path", url)) => format!("--path {}", quoted(url.strip_prefix("file://").unwrap_or(url))),
        Some(("git", url)) => format!("--git {}", quoted(url.split(['#', '?']).next().unwrap_or(url))),
        _ => "claude-peers".to_owned(),
    })
}

/// The package in an answer such as `claude-peers: /usr/bin/claude-peers`, the first one where several share the file.
fn dpkg_package<'a>(said: &'a str, program: &Path) -> Option<&'a str> {
    let answers = said.lines().filter(|line| !line.starts_with("diversion ")).filter_map(|line| line.split_once(": "));
    let (packages, _) = answers.into_iter().find(|(_, path)| Path::new(path) == program)?;
    packages.split(", ").next()
}

fn unanswered(manager: &str, why: &str) -> Failure {
    let what = format!("asking {manager} whether it installed this program: {}", why.trim());
    Failure::local(what, "nothing was changed; correct that, then try again")
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn some_places_tell_their_package_manager() {
        for (path, command) in [
            ("/opt/homebrew/Cellar/claude-peers/0.1.0/bin/claude-peers", Some("brew upgrade claude-peers")),
            ("/usr/lib/no-such-package/claude-peers", Some("the package manager that installed it")),
            ("/usr/local/no-such-folder/claude-peers", None),
        ] {
            let owner = super::of(path.as_ref()).await.expect("an answer");
            assert_eq!(owner.map(|owner| owner.command).as_deref(), command, "{path}");
        }
    }
}
