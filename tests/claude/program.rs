//! The Claude Code version that the tests run, installed once and kept between runs.
//!
//! `CLAUDE_PEERS_CLAUDE_VERSION` selects another version, which gets its own folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The default version.
const VERSION: &str = "2.1.330";
const PACKAGE: &str = "@anthropic-ai/claude-code";

/// The program, installed from the npm registry; `None` if npm is missing.
///
/// # Errors
/// If npm cannot install it.
pub fn installed() -> Result<Option<PathBuf>, String> {
    let host = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target")).join("host");
    let (version, folder) = match std::env::var("CLAUDE_PEERS_CLAUDE_VERSION") {
        Ok(version) if !version.is_empty() && version != VERSION => {
            let folder = host.join(format!("claude-{version}"));
            (version, folder)
        }
        _ => (VERSION.to_owned(), host.join("claude")),
    };
    let package = format!("{PACKAGE}@{version}");
    let platform = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let program = folder.join(format!("node_modules/@anthropic-ai/claude-code-linux-{platform}/claude"));
    let stamp = folder.join("version"); // written last
    if fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == package) {
        return Ok(Some(program));
    }
    let Ok(npm) = Command::new("npm").arg("--version").output() else { return Ok(None) };
    eprintln!("installing {package} with npm {}", String::from_utf8_lossy(&npm.stdout).trim());
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut command = Command::new("npm");
    command.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg(&package);
    let output = command.output().map_err(|e| format!("npm: {e}"))?;
    if !output.status.success() {
        return Err(format!("npm cannot install {package}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    if !program.exists() {
        return Err(format!("{package} brings no {}", program.display()));
    }
    fs::write(&stamp, &package).map_err(|e| format!("{}: {e}", stamp.display()))?;
    Ok(Some(program))
}
