//! The real Claude Code that the tests run: one version, installed once and kept between runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The one place that names the version.
const PACKAGE: &str = "@anthropic-ai/claude-code@2.1.330";

/// The program, from the npm registry; none where npm is missing.
///
/// # Errors
/// If npm cannot install it.
pub fn installed() -> Result<Option<PathBuf>, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target")).join("host/claude");
    let platform = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let program = folder.join(format!("node_modules/@anthropic-ai/claude-code-linux-{platform}/claude"));
    let stamp = folder.join("version"); // written last
    if fs::read_to_string(&stamp).is_ok_and(|version| version == PACKAGE) {
        return Ok(Some(program));
    }
    let Ok(npm) = Command::new("npm").arg("--version").output() else { return Ok(None) };
    eprintln!("installing {PACKAGE} with npm {}", String::from_utf8_lossy(&npm.stdout).trim());
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut command = Command::new("npm");
    command.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg(PACKAGE);
    let output = command.output().map_err(|e| format!("npm: {e}"))?;
    if !output.status.success() {
        return Err(format!("npm cannot install {PACKAGE}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    if !program.exists() {
        return Err(format!("{PACKAGE} brings no {}", program.display()));
    }
    fs::write(&stamp, PACKAGE).map_err(|e| format!("{}: {e}", stamp.display()))?;
    Ok(Some(program))
}
