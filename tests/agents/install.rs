//! The agents, installed once from the npm registry and kept between runs, each in its own folder.

use crate::agents::Agent;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The agent's program.
///
/// # Errors
/// The reason why it cannot be installed.
pub fn installed(agent: &Agent) -> Result<PathBuf, String> {
    let host = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target")).join("host");
    let (folder, packages) = (host.join(agent.name), agent.packages.join(" "));
    let (program, stamp) = (folder.join("node_modules/.bin").join(agent.program), folder.join("version")); // the stamp is written last
    if fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == packages) {
        return Ok(program);
    }
    let failed = |error: std::io::Error| format!("npm: {error}");
    fs::create_dir_all(&folder).map_err(failed)?;
    eprintln!("installing {packages}");
    let mut command = Command::new("npm");
    command.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).args(agent.packages);
    let output = command.output().map_err(failed)?;
    if !output.status.success() || !program.exists() {
        return Err(format!("npm cannot install {packages}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    fs::write(&stamp, &packages).map_err(failed)?;
    Ok(program)
}
