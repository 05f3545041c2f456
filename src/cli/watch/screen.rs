//! The terminal of the live view. It is taken over at the start, and given back at every end: a key, a signal, a failure, a panic.
//! The shell also has it while the view is stopped, by Ctrl-Z or from outside.

use super::{
    draw::Painter,
    feed::{self, News},
    model::{Action, Draft, Model},
};
use crate::{
    cli::send::request,
    client::{Client, with_query},
    console::{Failure, Out},
    wire::{Error, HistoryPage, MessageId, Receipt, Result as Answered, SendRequest},
};
use crossterm::event::{self, DisableBracketedPaste, EnableBracketedPaste, Event, KeyEventKind};
use ratatui::{DefaultTerminal, crossterm::execute};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Signal, getpid, kill_current_process_group, kill_process},
};
use serde_json::json;
use std::{
    fs::File,
    io::{self, IsTerminal},
    os::fd::AsFd,
    rc::Rc,
    thread,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// How many messages are loaded at a time.
const PAGE: u32 = 200;
/// How many messages of a conversation are shown.
const LONGEST_THREAD: u32 = 1_000;
/// How long the rest of a key's bytes may take.
const MOMENT: Duration = Duration::from_millis(1);

/// What the broker has answered to an action.
enum Answer {
    Sent(Receipt),
    NotSent(Draft, Error),
    Thread(HistoryPage),
    Page(HistoryPage),
}

pub async fn run(broker: Rc<Client>, out: Out) -> Result<(), Failure> {
    let feed = feed::open(broker.clone()).await?;
    let signals = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()].map(signal);
    let [mut terminated, mut hung_up, mut interrupted] = {
        let [a, b, c] = signals;
        [a.map_err(unusable)?, b.map_err(unusable)?, c.map_err(unusable)?]
    };
    let mut screen = Screen::take(broker, out)?;
    tokio::select! {
        ended = screen.live(feed) => ended,
        _ = terminated.recv() => Ok(()),
        _ = hung_up.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
    }
}

fn unusable(error: io::Error) -> Failure {
    Failure::local(format!("the terminal cannot be used: {error}"), "use `claude-peers watch --plain`")
}

/// The terminal while it shows the view.
struct Screen {
    terminal: DefaultTerminal,
    broker: Rc<Client>,
    model: Model,
    painter: Painter,
    answers: (mpsc::UnboundedSender<Answered<Answer>>, mpsc::UnboundedReceiver<Answered<Answer>>),
}

impl Screen {
    fn take(broker: Rc<Client>, out: Out) -> Result<Self, Failure> {
        // It also has a panic give the terminal back.
        let terminal = ratatui::try_init().map_err(unusable)?;
        let mut screen = Self {
            terminal,
            broker,
            model: Model::default(),
            painter: Painter::new(out.look.colour),
            answers: mpsc::unbounded_channel(),
        };
        screen.enter().map_err(unusable)?;
        Ok(screen)
    }

    fn enter(&mut self) -> io::Result<()> {
        execute!(io::stdout(), EnableBracketedPaste)
    }

    /// Shows what comes and does what keys say, until one ends it.
    async fn live(&mut self, mut feed: mpsc::Receiver<News>) -> Result<(), Failure> {
        let mut keys = keys().map_err(unusable)?;
        let mut resized = signal(SignalKind::window_change()).map_err(unusable)?;
        let [stopped, continued] = [Signal::TSTP, Signal::CONT].map(|name| signal(SignalKind::from_raw(name.as_raw())));
        let (mut stopped, mut continued) = (stopped.map_err(unusable)?, continued.map_err(unusable)?);
        self.load(None);
        loop {
            let (model, painter) = (&self.model, &mut self.painter);
            self.terminal.draw(|frame| painter.paint(model, frame)).map_err(unusable)?;
            tokio::select! {
                biased;
                key = keys.recv() => match key {
                    Some(event) => if self.input(&event.map_err(unusable)?)? { return Ok(()) },
                    None => return Ok(()), // the terminal is gone
                },
                _ = resized.recv() => {} // it is painted again
                _ = stopped.recv() => {
                    self.give_back().map_err(unusable)?;
                    kill_process(getpid(), Signal::STOP).map_err(io::Error::from).map_err(unusable)?;
                    continued.recv().await;
                    self.take_again().map_err(unusable)?;
                }
                _ = continued.recv() => {
                    // It was stopped without a word (SIGSTOP), so the shell has its own modes and our screen.
                    self.give_back().and_then(|()| self.take_again()).map_err(unusable)?;
                }
                answer = self.answers.1.recv() => answer.into_iter().for_each(|answer| self.answered(answer)),
                Some(news) = feed.recv() => {
                    self.news(news)?;
                    // All that has come by now is painted at once.
                    while let Ok(news) = feed.try_recv() {
                        self.news(news)?;
                    }
                }
            }
        }
    }

    fn news(&mut self, news: News) -> Result<(), Failure> {
        match news {
            News::Failed(error) => return Err(error.into()),
            News::Open => self.load(None),
            News::Event(_) | News::Away(_) => {}
        }
        self.model.hear(news);
        Ok(())
    }

    /// Returns whether it ends the view.
    fn input(&mut self, event: &Event) -> Result<bool, Failure> {
        let action = match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.model.press(*key, self.painter.page),
            Event::Paste(text) => {
                self.model.paste(text);
                None
            }
            _ => None,
        };
        match action {
            None => {}
            Some(Action::Quit) => return Ok(true),
            // As the terminal would: the signal also stops a script that runs the view.
            Some(Action::Suspend) => kill_current_process_group(Signal::TSTP).map_err(io::Error::from).map_err(unusable)?,
            Some(Action::LoadBefore(id)) => self.load(Some(id)),
            Some(Action::Send(draft)) => self.ask(async |broker| {
                let sent = send(broker, &draft).await;
                Ok(sent.map_or_else(|error| Answer::NotSent(draft, error), Answer::Sent))
            }),
            Some(Action::OpenThread(id)) => {
                let path = with_query("/v1/history", &json!({ "thread": id, "limit": LONGEST_THREAD }));
                self.ask(async move |broker| broker.get(&path, None).await.map(Answer::Thread));
            }
        }
        Ok(false)
    }

    fn load(&self, before: Option<MessageId>) {
        let path = with_query("/v1/history", &json!({ "limit": PAGE, "before": before }));
        self.ask(async move |broker| broker.get(&path, None).await.map(Answer::Page));
    }

    /// Asks the broker without keeping the keys waiting.
    fn ask(&self, request: impl AsyncFnOnce(&Client) -> Answered<Answer> + 'static) {
        let (broker, answers) = (self.broker.clone(), self.answers.0.clone());
        tokio::task::spawn_local(async move {
            let _ = answers.send(request(&broker).await); // the view may have ended
        });
    }

    fn answered(&mut self, answer: Answered<Answer>) {
        match answer {
            Ok(Answer::Sent(receipt)) => {
                let warning = receipt.warning.map(|warning| format!(": {warning}")).unwrap_or_default();
                let text = format!("m{} {} to {}{warning}", receipt.message_id.seq(), receipt.state, receipt.to_name);
                self.model.notice = Some((false, text));
            }
            Ok(Answer::NotSent(draft, error)) => {
                self.model.notice = Some((true, error.to_string()));
                self.model.unsent = Some(draft);
            }
            Ok(Answer::Thread(page)) => self.model.open(page.messages.into_iter().rev().collect()),
            Ok(Answer::Page(page)) => self.model.load(page.messages, page.next.is_some()),
            Err(error) => self.model.notice = Some((true, error.to_string())),
        }
    }

    fn give_back(&self) -> io::Result<()> {
        execute!(io::stdout(), DisableBracketedPaste)?;
        ratatui::try_restore()
    }

    fn take_again(&mut self) -> io::Result<()> {
        self.terminal = ratatui::try_init()?;
        self.enter()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If this fails, the terminal is gone.
        let _ = execute!(io::stdout(), DisableBracketedPaste);
        ratatui::restore();
    }
}

/// The keys, read by a thread of their own until the terminal is gone. The library would read on for ever then, so it is only asked
/// while there is something to read. Its feature `use-dev-tty` loses no key when the size changes; without it, keys are lost.
fn keys() -> io::Result<mpsc::UnboundedReceiver<io::Result<Event>>> {
    let (tell, keys) = mpsc::unbounded_channel();
    // As the library does.
    let other = if io::stdin().is_terminal() { None } else { Some(File::open("/dev/tty")?) };
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        let stdin = io::stdin();
        let terminal = other.as_ref().map_or(stdin.as_fd(), AsFd::as_fd);
        loop {
            let mut ready = [PollFd::from_borrowed_fd(terminal, PollFlags::IN)];
            match poll(&mut ready, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(_) if ready[0].revents() == PollFlags::IN => {}
                _ => return,
            }
            loop {
                let event = match event::poll(MOMENT) {
                    Ok(false) => break,
                    Ok(true) => event::read(),
                    Err(error) => Err(error),
                };
                let is_last = event.is_err(); // it ends the view
                if tell.send(event).is_err() || is_last {
                    return; // nobody listens any more
                }
            }
        }
    })?;
    Ok(keys)
}

async fn send(broker: &Client, draft: &Draft) -> Answered<Receipt> {
    let reply_to = draft.reply_to.as_ref().map(ToString::to_string);
    let request = SendRequest { reply_to, ..request(&draft.to, draft.text.clone()) };
    broker.post("/v1/send", None, &request).await
}
