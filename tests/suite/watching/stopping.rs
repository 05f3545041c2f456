//! `claude-peers watch` as a job of an interactive shell: it is stopped and goes on.

use super::{peer, send};
use crate::support::{Broker, broker::signal, eventually, terminal::Terminal};
use std::fs;

/// A shell with job control in a terminal.
struct Shell {
    terminal: Terminal,
    commands: u32,
}

impl Shell {
    fn start(broker: &Broker) -> Option<Self> {
        let terminal = Terminal::run(broker, "PS1='$ ' bash --norc --noprofile -i", (80, 24), &[])?;
        terminal.shows("\n$");
        Some(Self { terminal, commands: 0 })
    }

    fn runs(&self, command: &str) {
        self.terminal.types(command);
        self.terminal.keys(&["Enter"]);
    }

    /// Runs a command and returns its line of output. It must be seen as it is typed, so the terminal must be as the shell needs it.
    fn asks(&mut self, command: &str) -> String {
        self.commands += 1;
        let (before, after) = (format!("<{}:", self.commands), format!(":{}>", self.commands));
        let typed = format!("echo \"<\"{}:$({command}):{}\">\"", self.commands, self.commands);
        self.terminal.types(&typed);
        self.terminal.shows(&typed);
        self.terminal.keys(&["Enter"]);
        let screen = self.terminal.shows(&after).replace('\n', "");
        screen.split_once(&before).unwrap().1.split_once(&after).unwrap().0.to_owned()
    }

    /// The process of the view.
    fn view(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.terminal.child());
        eventually("the view runs", || fs::read_to_string(&children).ok()?.split_whitespace().last()?.parse().ok())
    }
}

#[test]
fn stopped_view_gives_the_terminal_back() {
    let broker = Broker::start();
    let http = broker.http();
    let [_shop, web] = ["shop", "web"].map(|name| peer(&http, name));
    let Some(mut shell) = Shell::start(&broker) else { return };
    let modes = shell.asks("stty -g");
    shell.runs(&format!("{} watch", env!("CARGO_BIN_EXE_claude-peers")));
    shell.terminal.shows("q quit");
    let view = shell.view();
    for (number, how) in ["Ctrl-Z", "TSTP", "STOP"].into_iter().enumerate() {
        match how {
            "Ctrl-Z" => shell.terminal.keys(&["C-z"]),
            name => signal(view, name),
        }
        shell.terminal.shows("Stopped");
        if how != "STOP" {
            shell.terminal.hides("q quit");
        }
        assert_eq!(shell.asks("stty -g"), modes, "{how}");
        let text = format!("meanwhile {number}");
        send(&web.over(&http), "shop", &text, None);
        shell.runs("clear; fg");
        shell.terminal.shows("q quit");
        shell.terminal.shows(&text);
        // It reads single keys, and shows nothing that is typed.
        shell.terminal.keys(&["s"]);
        shell.terminal.shows("to shop:");
        shell.terminal.keys(&["Escape"]);
        shell.terminal.hides("to shop:");
    }
    shell.terminal.keys(&["q"]);
    shell.terminal.hides("q quit");
    assert_eq!(shell.asks("stty -g"), modes);
}
