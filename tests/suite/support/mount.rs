//! Mounts: those that only one command sees, and one that never answers, as that of a network drive whose server is gone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The command after this shell script, whose mounts nothing else sees; `$0` is `place`. Prints a message and returns `None` without
/// the right to mount.
pub fn with_mounts(command: &Command, script: &str, place: &Path) -> Option<Command> {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(if rustix::process::geteuid().is_root() { &["--mount"][..] } else { &["--mount", "--map-root-user"] });
        unshare
    };
    if !unshare().args(["mount", "-t", "tmpfs", "none", "/mnt"]).stderr(Stdio::null()).status().unwrap().success() {
        eprintln!("SKIPPED: no mount namespace can be had");
        return None;
    }
    let mut mounted = unshare();
    mounted.args(["sh", "-c", &format!("{script} && exec \"$@\"")]).arg(place);
    mounted.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    mounted.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = command.get_current_dir() {
        mounted.current_dir(directory);
    }
    Some(mounted)
}

/// Until it is dropped, every look into the folder hangs.
pub struct DeadMount {
    folder: PathBuf,
    /// The file system's server, which reads no request.
    server: Child,
}

impl DeadMount {
    /// Creates `folder` and mounts there. Prints a message and returns `None` without the right to do so.
    pub fn at(folder: &Path) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let script =
            "exec 3<>/dev/fuse && mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none \"$0\" && exec sleep 600";
        let mut command = Command::new("sh");
        let server = command.args(["-c", script]).arg(folder).stderr(Stdio::null()).spawn().unwrap();
        let mut mount = Self { folder: folder.to_owned(), server };
        let mounted = || fs::read_to_string("/proc/mounts").unwrap_or_default().contains(folder.to_str().unwrap());
        let is_there = super::eventually("the mount is there, or is refused", || {
            if mounted() { Some(true) } else { mount.server.try_wait().unwrap().map(|_| false) }
        });
        if !is_there {
            eprintln!("SKIPPED: only root can mount a file system");
        }
        is_there.then_some(mount)
    }
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait()); // with it, all that hangs fails
        drop(Command::new("umount").arg("-l").arg(&self.folder).stderr(Stdio::null()).status());
    }
}
