//! A command in a real terminal, which tmux draws.

use super::{Broker, eventually, folder, installed};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A terminal in which a shell has run `command` and then said how it ended.
pub struct Terminal {
    folder: TempDir,
}

impl Terminal {
    /// Runs `command` in a terminal of this size, with `env` added to the broker's environment. None without tmux.
    pub fn run(broker: &Broker, command: &str, (width, height): (u16, u16), env: &[(&str, &str)]) -> Option<Self> {
        if !installed("tmux") {
            return None;
        }
        let terminal = Self { folder: folder() };
        let cli = broker.cli(&[]);
        let program = cli.get_program().to_str().unwrap();
        let script =
            format!("stty -g; {}; code=$?; stty -g; echo ended with $code; cat", command.replace("claude-peers", program));
        let (width, height) = (width.to_string(), height.to_string());
        let mut words = vec!["new-session", "-d", "-x", &width, "-y", &height, "env", "-i"];
        let mut all =
            vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned(), "LANG=C.UTF-8".to_owned(), "TERM=tmux-256color".to_owned()];
        all.extend(broker.env().into_iter().map(|(name, value)| format!("{name}={value}")));
        all.extend(env.iter().map(|(name, value)| format!("{name}={value}")));
        words.extend(all.iter().map(String::as_str));
        words.extend(["sh", "-c", &script]);
        let output = terminal.tmux(&words);
        assert!(output.status.success(), "{output:?}");
        Some(terminal)
    }

    /// Types a text.
    pub fn types(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Presses keys, given by their tmux names.
    pub fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    pub fn resize(&self, width: u16, height: u16) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// Waits until its screen shows this. Returns the screen.
    #[track_caller]
    pub fn shows(&self, text: &str) -> String {
        self.comes_to(&format!("the terminal shows {text:?}"), |screen| screen.contains(text))
    }

    /// Waits until its screen does not show this. Returns the screen.
    #[track_caller]
    pub fn hides(&self, text: &str) -> String {
        self.comes_to(&format!("the terminal hides {text:?}"), |screen| !screen.contains(text))
    }

    #[track_caller]
    fn comes_to(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        eventually(what, || Some(self.screen()).filter(|screen| is_it(screen)))
    }

    /// The text on its screen.
    pub fn screen(&self) -> String {
        self.captured(&[])
    }

    /// The text with its colours, as escape sequences.
    pub fn coloured_screen(&self) -> String {
        self.captured(&["-e"])
    }

    fn captured(&self, options: &[&str]) -> String {
        String::from_utf8_lossy(&self.tmux(&[&["capture-pane", "-p"], options].concat()).stdout).into_owned()
    }

    /// The process that runs in it under the shell.
    pub fn child(&self) -> u32 {
        let shell = String::from_utf8(self.tmux(&["display-message", "-p", "#{pane_pid}"]).stdout).unwrap();
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        eventually("the command runs", || std::fs::read_to_string(&children).ok()?.split_whitespace().last()?.parse().ok())
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8").env("TERM", "xterm-256color");
        command.args(["-f", "/dev/null", "-S"]).arg(self.folder.path().join("tmux")).args(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the screen ---\n{}--- end ---", self.screen());
        }
        self.tmux(&["kill-server"]);
    }
}
