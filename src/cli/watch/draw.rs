//! Paints the live view: peers above, messages or a conversation below, the keys at the foot.

use super::{
    lines::changed_at,
    model::{Focus, Model, Thread, Typing},
};
use crate::{
    cli::{peers, rows},
    console::{Tone, brief},
    platform::clock,
    wire::{
        HistoryEntry, Peer, Status,
        text::{first_words, printable, printable_line},
    },
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Cell, Paragraph, Row as TableRow, Table, TableState, Wrap},
};

const KEYS: &str = "Tab list  ↑↓ move  Enter open  / filter  s send  a answer  q quit";
const THREAD_KEYS: &str = "↑↓ scroll  a answer  Esc back  q quit";
const TYPING_KEYS: &str = "Enter done  Esc cancel";

/// How the view looks, and what it measures.
pub struct Painter {
    pub colour: bool,
    /// The rows of the list below, as last painted.
    pub page: usize,
}

impl Painter {
    pub fn new(colour: bool) -> Self {
        Self { colour, page: 1 }
    }

    fn style(&self, tone: Tone) -> Style {
        let colour = |colour| if self.colour { Style::new().fg(colour) } else { Style::new() };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
            Tone::Dim => Style::new().add_modifier(Modifier::DIM),
            Tone::Good => colour(Color::Green),
            Tone::Warn => colour(Color::Yellow),
            Tone::Bad => colour(Color::Red),
        }
    }

    pub fn paint(&mut self, model: &Model, frame: &mut Frame<'_>) {
        let peers = model.peers();
        // The peers get as many rows as they need, up to two fifths of the screen.
        let wanted = u16::try_from(peers.len().max(1)).unwrap_or(u16::MAX).saturating_add(2);
        let most = (frame.area().height * 2 / 5).max(3);
        let [head, above, below, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(wanted.min(most)),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(self.head(model), head);
        self.peers(model, &peers, frame, above);
        match &model.thread {
            Some(thread) => self.thread(thread, frame, below),
            None => self.messages(model, frame, below),
        }
        frame.render_widget(self.foot(model, foot.width), foot);
    }

    fn head(&self, model: &Model) -> Line<'static> {
        let (live, waiting) = model.counts();
        let mut parts = vec![
            Span::styled("claude-peers", self.style(Tone::Strong)),
            format!("  {live} session{}, ", if live == 1 { "" } else { "s" }).into(),
            Span::styled(format!("{waiting} waiting"), self.style(if waiting == 0 { Tone::Dim } else { Tone::Warn })),
        ];
        if !model.filter.is_empty() {
            parts.push(format!("  filter: {}", printable_line(&model.filter)).into());
        }
        if let Some(why) = &model.away {
            parts.push(Span::styled(format!("  the broker is away: {}", printable_line(why)), self.style(Tone::Bad)));
        }
        parts.into()
    }

    fn frame(&self, title: &'static str, has_focus: bool) -> Block<'static> {
        let tone = if has_focus { Tone::Strong } else { Tone::Dim };
        Block::new().borders(Borders::TOP).border_style(self.style(tone)).title(title)
    }

    fn peers(&self, model: &Model, peers: &[&Peer], frame: &mut Frame<'_>, area: Rect) {
        let has_focus = model.focus == Focus::Peers && model.thread.is_none();
        let block = self.frame(" Sessions ", has_focus);
        if peers.is_empty() {
            let text = match model.filter.is_empty() {
                true => "No sessions. A session appears here when its claude-peers MCP server starts.",
                false => "No session fits the filter.",
            };
            frame.render_widget(Paragraph::new(text).style(self.style(Tone::Dim)).wrap(Wrap::default()).block(block), area);
            return;
        }
        let now = clock::now();
        let rows = peers.iter().map(|peer| {
            let (doing, tone) = peers::doing(peer);
            let activity = peer.activity.as_ref().filter(|_| peer.status == Status::Connected);
            let since = activity.and_then(|activity| activity.since).map(|at| format!(" {}", brief(at, now))).unwrap_or_default();
            let needs = activity.and_then(|activity| activity.needs.as_deref());
            let waiting = if peer.waiting == 0 { String::new() } else { peer.waiting.to_string() };
            let cwd = peers::directory(peer, str::to_owned);
            let what = needs.unwrap_or(if peer.summary.is_empty() { &cwd } else { &peer.summary });
            [
                (printable_line(&peer.name).into_owned(), Tone::Strong),
                (format!("{doing}{since}"), tone),
                (peer.delivery.to_string(), Tone::Plain),
                (waiting, Tone::Warn),
                (printable_line(peer.git_branch.as_deref().unwrap_or_default()).into_owned(), Tone::Plain),
                (printable_line(what).into_owned(), Tone::Plain),
            ]
        });
        let mut state = TableState::new().with_selected(model.selected_peer(peers).filter(|_| has_focus));
        let table = self.table(rows.collect(), [20, 21, 7, 4, 14]).block(block);
        frame.render_stateful_widget(table, area, &mut state);
    }

    /// A table with each column as wide as its texts, up to `most`, and the last one as wide as there is room.
    fn table<const N: usize, const M: usize>(&self, rows: Vec<[(String, Tone); N]>, most: [u16; M]) -> Table<'static> {
        let widest = |column: usize| rows.iter().map(|row| Line::from(row[column].0.as_str()).width()).max().unwrap_or_default();
        let width = |(column, most): (usize, &u16)| Constraint::Length(u16::try_from(widest(column)).unwrap_or(*most).min(*most));
        let widths: Vec<Constraint> = most.iter().enumerate().map(width).chain([Constraint::Fill(1)]).collect();
        let cell = |(text, tone): (String, Tone)| Cell::from(text).style(self.style(tone));
        let rows = rows.into_iter().map(|row| TableRow::new(row.map(cell)));
        Table::new(rows, widths).row_highlight_style(Modifier::REVERSED)
    }

    fn messages(&mut self, model: &Model, frame: &mut Frame<'_>, area: Rect) {
        let has_focus = model.focus == Focus::Messages;
        let block = self.frame(" Messages ", has_focus);
        let messages = model.messages();
        if messages.is_empty() {
            let text = if model.filter.is_empty() { "No messages yet." } else { "No message fits the filter." };
            frame.render_widget(Paragraph::new(text).style(self.style(Tone::Dim)).block(block), area);
            return;
        }
        self.page = usize::from(area.height.saturating_sub(1)).max(1);
        let selected = model.selected_message(&messages).unwrap_or_default();
        // Only what is seen is laid out: the list may be long.
        let first = selected.saturating_sub(self.page / 2).min(messages.len().saturating_sub(self.page));
        let shown = &messages[first..messages.len().min(first + self.page)];
        let rows = shown.iter().map(|entry| {
            let ([time, id, parties], state) = (head(entry), entry.receipt.state);
            [
                (time, Tone::Dim),
                (id, Tone::Plain),
                (parties, Tone::Plain),
                (state.to_string(), rows::tone(state)),
                (first_words(&entry.text, usize::from(area.width)), Tone::Plain),
            ]
        });
        let mut state = TableState::new().with_selected(has_focus.then_some(selected - first));
        let table = self.table(rows.collect(), [11, 9, area.width / 3, 9]).block(block);
        frame.render_stateful_widget(table, area, &mut state);
    }

    fn thread(&mut self, thread: &Thread, frame: &mut Frame<'_>, area: Rect) {
        let mut text: Vec<Line<'_>> = Vec::new();
        for entry in &thread.messages {
            let ([time, id, parties], state) = (head(entry), entry.receipt.state);
            text.push(Line::from(vec![
                Span::styled(format!("{time} {id}  "), self.style(Tone::Dim)),
                Span::styled(parties, self.style(Tone::Strong)),
                Span::styled(format!("  {}", state.as_str()), self.style(rows::tone(state))),
            ]));
            text.extend(printable(&entry.text).lines().map(|line| Line::from(format!("  {line}"))));
            text.push(Line::default());
        }
        self.page = usize::from(area.height.saturating_sub(1)).max(1);
        let paragraph = Paragraph::new(text).wrap(Wrap { trim: false });
        let most = paragraph.line_count(area.width).saturating_sub(self.page);
        let scrolled = thread.scrolled.min(u16::try_from(most).unwrap_or(u16::MAX));
        frame.render_widget(paragraph.scroll((scrolled, 0)).block(self.frame(" Conversation ", true)), area);
    }

    fn foot(&self, model: &Model, width: u16) -> Line<'static> {
        if let Some(typing) = &model.typing {
            let (prompt, text) = match typing {
                Typing::Filter => ("/".to_owned(), &model.filter),
                Typing::Message(draft) => (format!("to {}: ", printable_line(&draft.to_name)), &draft.text),
            };
            // Of a long line, its end is shown.
            let room = usize::from(width).saturating_sub(Line::from(prompt.as_str()).width() + 1);
            let text = printable_line(text);
            let fits = |(at, _): &(usize, char)| Line::from(&text[*at..]).width() <= room;
            let from = text.char_indices().find(fits).map_or(text.len(), |(at, _)| at);
            return Line::from(vec![
                Span::styled(prompt, self.style(Tone::Strong)),
                text[from..].to_owned().into(),
                Span::styled("█", self.style(Tone::Dim)),
                Span::styled(format!("   {TYPING_KEYS}"), self.style(Tone::Dim)),
            ]);
        }
        if let Some((is_failure, text)) = &model.notice {
            let tone = if *is_failure { Tone::Bad } else { Tone::Good };
            return Span::styled(printable_line(text).into_owned(), self.style(tone)).into();
        }
        let keys = if model.thread.is_some() { THREAD_KEYS } else { KEYS };
        Span::styled(keys, self.style(Tone::Dim)).into()
    }
}

/// What a list and a conversation show of a message: its time, number and parties.
fn head(entry: &HistoryEntry) -> [String; 3] {
    let receipt = &entry.receipt;
    let parties = format!("{} → {}", printable_line(&entry.from_name), printable_line(&receipt.to_name));
    [brief(changed_at(receipt), clock::now()), format!("m{}", receipt.message_id.seq()), parties]
}
