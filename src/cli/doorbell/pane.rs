//! A pane of tmux: what it shows, who reads what is typed there, and typing into it.

use crate::{
    console::Failure,
    platform::{
        call::{Call, quoted},
        clock, process,
    },
    wire::{Peer, Process},
};
use std::{path::Path, time::Duration};

/// How long a command of tmux may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Our MCP server, which is not the agent.
const SERVER: &str = "claude-peers-mcp";

#[derive(Debug)]
pub struct Pane {
    /// Such as `%3`.
    pub id: String,
    /// Its terminal, such as `/dev/pts/3`.
    terminal: String,
    /// The process with which it began.
    first: u32,
}

/// What a pane shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screen {
    /// It is scrolled, or in another mode in which keys do not reach the program.
    pub is_in_mode: bool,
    /// Keys do not reach it, or also reach other panes.
    pub is_locked: bool,
    pub width: usize,
    /// The cursor's column and row, and whether it is shown.
    pub cursor: (usize, usize),
    pub has_cursor: bool,
    pub rows: Vec<String>,
}

/// The panes that `wanted` names; all, if it is empty.
pub async fn list(wanted: &str) -> Result<Vec<Pane>, Failure> {
    let format = "#{pane_id} #{pane_tty} #{pane_pid}";
    let said = match wanted {
        "" => tmux(["list-panes", "-a", "-F", format]).await?,
        pane => tmux(["display-message", "-p", "-t", pane, format]).await?,
    };
    let pane = |line: &str| {
        let [id, terminal, first] = <[&str; 3]>::try_from(line.split(' ').collect::<Vec<_>>()).ok()?;
        Some(Pane { id: id.to_owned(), terminal: terminal.to_owned(), first: first.parse().ok()? })
    };
    let panes: Vec<Pane> = said.lines().filter_map(pane).collect();
    if panes.is_empty() {
        return Err(Failure::local(format!("tmux has no pane {wanted:?}"), "`tmux list-panes -a` lists them")); // it prints an empty line
    }
    Ok(panes)
}

async fn tmux<const N: usize>(words: [&str; N]) -> Result<String, Failure> {
    let help = "look at `tmux list-panes -a`; outside of tmux, its default server is used";
    Call::new("tmux", "tmux", words, PATIENCE).run().await.map_err(|error| Failure::local(error.to_string(), help))
}

impl Pane {
    /// The process of this session's agent, if what is typed into the pane goes to it.
    pub fn agent_of(&self, peer: &Peer) -> Option<Process> {
        let (pid, front) = (peer.pid?, process::foreground(self.first)?);
        let is_server = |pid: u32| {
            let words = process::command_line(pid);
            words.first().is_some_and(|program| Path::new(program).file_name().is_some_and(|name| name == SERVER))
        };
        let reads = |pid: u32| process::group(pid) == Some(front) && process::terminal(pid).as_ref() == Some(&self.terminal);
        let above = std::iter::once(pid).chain(process::ancestors(pid));
        above.into_iter().find(|pid| !is_server(*pid) && reads(*pid)).and_then(process::identify)
    }

    pub async fn look(&self) -> Result<Screen, Failure> {
        let format =
            "#{pane_in_mode} #{pane_input_off} #{pane_synchronized} #{cursor_flag} #{cursor_x} #{cursor_y} #{pane_width}";
        let pane = &self.id;
        let said = tmux(["display-message", "-p", "-t", pane, format, ";", "capture-pane", "-p", "-t", pane]).await?;
        let (facts, rows) = said.split_once('\n').unwrap_or_default();
        let facts: Vec<usize> = facts.split(' ').filter_map(|fact| fact.parse().ok()).collect();
        let &[mode, off, shared, cursor, column, row, width] = facts.as_slice() else {
            return Err(Failure::local(format!("tmux does not describe pane {pane}: {facts:?}"), "use tmux 3.0 or later"));
        };
        Ok(Screen {
            is_in_mode: mode > 0,
            is_locked: off > 0 || shared > 0,
            width,
            cursor: (column, row),
            has_cursor: cursor > 0,
            rows: rows.lines().map(|row| row.trim_end().to_owned()).collect(),
        })
    }

    /// Whether somebody has typed into this pane, in an attached terminal, so recently.
    pub async fn typed_within(&self, time: Duration) -> Result<bool, Failure> {
        let said = tmux(["list-clients", "-F", "#{pane_id} #{client_activity}"]).await?;
        let last = said.lines().filter_map(|line| line.strip_prefix(&self.id)?.trim().parse::<i64>().ok()).max();
        // tmux tells whole seconds.
        let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX) + 1_000;
        Ok(last.is_some_and(|last| clock::now().as_millis() - last * 1_000 < time))
    }

    /// Types a text, if the pane still takes input where `screen` shows its cursor.
    pub async fn types(&self, screen: &Screen, text: &str) -> Result<(), Failure> {
        self.send(screen, &format!("-l {}", quoted(text))).await
    }

    /// Presses Enter, under the same condition.
    pub async fn enter(&self, screen: &Screen) -> Result<(), Failure> {
        self.send(screen, "Enter").await
    }

    /// tmux itself checks the condition, in the moment in which it types.
    async fn send(&self, screen: &Screen, keys: &str) -> Result<(), Failure> {
        let (pane, (column, row)) = (&self.id, screen.cursor);
        let condition = format!("#{{==:#{{pane_in_mode}} #{{cursor_x}} #{{cursor_y}},0 {column} {row}}}");
        tmux(["if-shell", "-F", "-t", pane, &condition, &format!("send-keys -t {pane} {keys}")]).await.map(drop)
    }
}
