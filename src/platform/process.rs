//! Processes as the kernel knows them: whether one still lives, its parent, its command line, its terminal.
//!
//! Process ids are reused, but an id and a start time identify one process forever ([`Process`]). Nothing here reports an error:
//! a process that is gone or unreadable counts as absent.

use crate::wire::Process;

pub use imp::{command_line, environment, foreground, group, terminal};
#[cfg(target_os = "linux")]
use proc as imp;
#[cfg(not(target_os = "linux"))]
use ps as imp;

const MOST_ANCESTORS: usize = 64;

/// This process's parent; none if it is already gone.
pub fn parent() -> Option<u32> {
    rustix::process::getppid().and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok())
}

/// The process `pid` as it is now: its number and when it started.
pub fn identify(pid: u32) -> Option<Process> {
    imp::started(pid).map(|started| Process { pid, started })
}

/// Whether this exact process still lives. A zombie counts as gone, because it no longer runs.
pub fn is_alive(process: Process) -> bool {
    match imp::started(process.pid) {
        Some(started) => process.started == 0 || started == 0 || started == process.started,
        None => false,
    }
}

/// The ancestors of `pid`, nearest first.
pub fn ancestors(pid: u32) -> Vec<u32> {
    lineage(pid).skip(1).collect()
}

/// Whether `pid` is `ancestor`, or descends from it.
pub fn descends_from(pid: u32, ancestor: u32) -> bool {
    lineage(pid).any(|pid| pid == ancestor)
}

/// The processes that descend from `ancestor`. Only Linux lists them cheaply; elsewhere there are none.
pub fn descendants(ancestor: u32) -> Vec<u32> {
    let listed = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|pid| *pid != ancestor && descends_from(*pid, ancestor)).collect()
}

/// This user's processes that have a terminal; none where they cannot be listed cheaply.
#[cfg(feature = "broker")]
pub fn own_in_terminals() -> Option<impl Iterator<Item = u32>> {
    let own = rustix::process::getuid().as_raw();
    let all = std::fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Some(all.filter(move |pid| terminal(*pid).is_some() && imp::user(*pid) == Some(own)))
}

fn lineage(pid: u32) -> impl Iterator<Item = u32> {
    let up = |pid: &u32| imp::parent_of(*pid).filter(|parent| *parent > 0);
    std::iter::successors(Some(pid), up).take(MOST_ANCESTORS + 1)
}

/// Whether two processes run the same program file.
pub fn same_program(a: u32, b: u32) -> bool {
    imp::program(a).is_some_and(|a| imp::program(b) == Some(a))
}

#[cfg(target_os = "linux")]
mod proc {
    use std::{
        ffi::{OsStr, OsString},
        fs,
        os::unix::{ffi::OsStrExt, fs::MetadataExt},
    };

    /// The fields of `/proc/PID/stat` behind the command's name, which may itself hold spaces and brackets: proc(5) numbers
    /// them from 3 (state) on.
    fn stat(pid: u32) -> Option<Vec<String>> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        let (_, behind_name) = text.rsplit_once(')')?;
        Some(behind_name.split_ascii_whitespace().map(str::to_owned).collect())
    }

    fn field(stat: &[String], number: usize) -> Option<&str> {
        stat.get(number.checked_sub(3)?).map(String::as_str)
    }

    pub fn started(pid: u32) -> Option<u64> {
        let stat = stat(pid)?;
        if matches!(field(&stat, 3)?, "Z" | "X") {
            return None;
        }
        field(&stat, 22)?.parse().ok()
    }

    pub fn parent_of(pid: u32) -> Option<u32> {
        field(&stat(pid)?, 4)?.parse().ok()
    }

    /// The file that a process runs: its device and number.
    pub fn program(pid: u32) -> Option<(u64, u64)> {
        fs::metadata(format!("/proc/{pid}/exe")).ok().map(|file| (file.dev(), file.ino()))
    }

    /// The user that a process runs as. The owner of its folder is root where it forbids to be traced.
    #[cfg(feature = "broker")]
    pub fn user(pid: u32) -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().next()?.parse().ok()
    }

    pub fn command_line(pid: u32) -> Vec<String> {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        bytes.split(|b| *b == 0).filter(|word| !word.is_empty()).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    /// The environment with which a process began, as `NAME=VALUE`.
    pub fn environment(pid: u32) -> Vec<OsString> {
        let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        bytes.split(|b| *b == 0).map(|entry| OsStr::from_bytes(entry).to_owned()).collect()
    }

    pub fn group(pid: u32) -> Option<u32> {
        field(&stat(pid)?, 5)?.parse().ok()
    }

    /// The group of processes to which the controlling terminal of this process sends what is typed.
    pub fn foreground(pid: u32) -> Option<u32> {
        field(&stat(pid)?, 8)?.parse().ok()
    }

    /// The controlling terminal, such as `/dev/pts/3`.
    pub fn terminal(pid: u32) -> Option<String> {
        let device: u64 = field(&stat(pid)?, 7)?.parse::<i64>().ok()?.try_into().ok()?;
        // The encoding of tty_nr: minor in bits 31-20 and 7-0, major in bits 15-8 (proc_pid_stat(5)).
        let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
        match major {
            136..=143 => Some(format!("/dev/pts/{}", (major - 136) * 256 + minor)),
            4 => Some(format!("/dev/tty{minor}")),
            _ => None,
        }
    }
}

#[cfg(any(not(target_os = "linux"), test))]
mod ps {
    //! Systems without `/proc`: uses `ps`, the interface that POSIX defines, and only when a session starts or ends.
    use std::process::Command;

    fn ps(pid: u32, column: &str) -> Option<String> {
        let mut command = Command::new("ps");
        // Unlimited width, fixed language and time zone, so that every caller gets the same text.
        command.args(["-ww", "-o", &format!("{column}="), "-p", &pid.to_string()]).env("LC_ALL", "C").env("TZ", "UTC0");
        let output = command.output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    }

    /// The start time in whole seconds as a number made of `ps`'s own wording: only equality matters. The sum is FNV-1a, the
    /// same in every build of ours, because broker and session compare theirs.
    pub fn started(pid: u32) -> Option<u64> {
        if ps(pid, "stat")?.starts_with('Z') {
            return None;
        }
        let sum = |sum: u64, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let sum = ps(pid, "lstart")?.bytes().fold(0xcbf2_9ce4_8422_2325, sum);
        Some(sum >> 1 | 1) // fits SQLite's signed integers, and is never 0
    }

    pub fn parent_of(pid: u32) -> Option<u32> {
        ps(pid, "ppid")?.parse().ok()
    }

    #[cfg(not(target_os = "linux"))]
    pub fn program(pid: u32) -> Option<String> {
        ps(pid, "comm")
    }

    #[cfg(all(feature = "broker", not(target_os = "linux")))]
    pub fn user(pid: u32) -> Option<u32> {
        ps(pid, "uid")?.parse().ok()
    }

    pub fn command_line(pid: u32) -> Vec<String> {
        ps(pid, "args").map(|args| args.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
    }

    pub fn group(pid: u32) -> Option<u32> {
        ps(pid, "pgid")?.parse().ok()
    }

    pub fn foreground(pid: u32) -> Option<u32> {
        ps(pid, "tpgid")?.parse().ok()
    }

    /// Not shown by `ps`.
    #[cfg(not(target_os = "linux"))]
    pub fn environment(_pid: u32) -> Vec<std::ffi::OsString> {
        Vec::new()
    }

    pub fn terminal(pid: u32) -> Option<String> {
        ps(pid, "tty").filter(|tty| !tty.starts_with('?')).map(|tty| format!("/dev/{tty}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_number_is_another_process() {
        let me = identify(std::process::id()).expect("this process");
        assert!(is_alive(me) && !is_alive(Process { started: me.started + 1, ..me }));
    }

    /// Other systems ask `ps`; it must agree with `/proc`.
    #[cfg(target_os = "linux")]
    #[test]
    fn ps_agrees_with_proc() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id();
        assert_eq!(ps::parent_of(pid), proc::parent_of(pid));
        assert_eq!(ps::terminal(pid), proc::terminal(pid));
        assert_eq!(ps::group(pid), proc::group(pid));
        assert_eq!(ps::foreground(pid), proc::foreground(pid));
        assert_eq!(ps::command_line(pid), ["sleep", "1000"]);
        let started = ps::started(pid);
        assert!(started.is_some());
        assert_eq!(ps::started(pid), started);
        assert_ne!(ps::started(1), started);
        child.kill().unwrap();
        // Dead, but not yet waited for: a zombie.
        while proc::started(pid).is_some() {
            std::thread::yield_now();
        }
        assert_eq!(ps::started(pid), None);
        child.wait().unwrap();
        assert_eq!((ps::started(pid), ps::parent_of(pid)), (None, None));
    }
}
