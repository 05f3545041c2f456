//! The agents and their Node, installed once from the npm registry and kept between runs, each in its own folder.

use crate::{
    agents::{Agent, NODE, OPENCODE_PLUGIN},
    program,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The variable that names another version of all agents: `latest`.
const VERSION: &str = "CLAUDE_PEERS_AGENTS_VERSION";

/// The agent's program.
///
/// # Errors
/// The reason why it cannot be installed.
pub fn installed(agent: &Agent) -> Result<PathBuf, String> {
    if agent.name == "claude" {
        return program::installed()?.ok_or("npm is not installed".to_owned());
    }
    install("node", NODE, Some("node"))?;
    if agent.name == "opencode" {
        install("opencode-plugin", &wanted(OPENCODE_PLUGIN), None)?;
    }
    install(agent.name, &wanted(agent.package), Some(agent.program))
}

/// The package in the version that is tested: the pinned one, or the one that the variable names.
fn wanted(package: &str) -> String {
    let name = package.rsplit_once('@').map_or(package, |(name, _)| name);
    env::var(VERSION).map_or(package.to_owned(), |version| format!("{name}@{version}"))
}

/// The folder with the Node that runs the agents.
pub fn node() -> PathBuf {
    programs("node")
}

/// The folder in which a package is installed.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target")).join("host").join(name)
}

fn programs(name: &str) -> PathBuf {
    folder(name).join("node_modules/.bin")
}

/// Installs a package. Returns the path of its program, if it has one.
fn install(name: &str, package: &str, program: Option<&str>) -> Result<PathBuf, String> {
    let (folder, program) = (folder(name), programs(name).join(program.unwrap_or_default()));
    let stamp = folder.join("version"); // written last
    let is_there = fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == package);
    if is_there && !package.ends_with("@latest") {
        return Ok(program);
    }
    let failed = |error: std::io::Error| format!("npm: {error}");
    fs::create_dir_all(&folder).map_err(failed)?;
    eprintln!("installing {package}");
    let mut command = Command::new("npm");
    command.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg(package);
    let output = command.output().map_err(failed)?;
    if !output.status.success() || !program.exists() {
        return Err(format!("npm cannot install {package}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    fs::write(&stamp, package).map_err(failed)?;
    Ok(program)
}
