//! `claude-peers watch` in a real terminal.

use super::{peer, send, take};
use crate::support::{
    Broker,
    broker::signal,
    events::{Events, Peer},
    eventually,
    http::Http,
    terminal::Terminal,
};
use serde_json::{Value, json};
use std::{fs, time::Duration};

const SMALL: (u16, u16) = (80, 24);

/// A broker with two connected peers, `shop` and `web`. They are connected as long as their streams live.
fn two_peers(broker: &Broker) -> ([Peer; 2], [Events; 2]) {
    let http = broker.http();
    let peers = ["shop", "web"].map(|name| peer(&http, name));
    let streams = peers.each_ref().map(|peer| peer.follow(&http));
    (peers, streams)
}

fn watch(broker: &Broker, size: (u16, u16), env: &[(&str, &str)]) -> Option<Terminal> {
    let terminal = Terminal::run(broker, "claude-peers watch", size, env)?;
    terminal.shows("q quit");
    Some(terminal)
}

/// Whether the terminal is as the program found it: `stty -g` says the same before and after.
fn is_restored(terminal: &Terminal) {
    let screen = terminal.shows("ended with 0");
    let modes: Vec<_> = screen.lines().filter(|line| line.matches(':').count() > 10).collect();
    assert!(modes.len() == 2 && modes[0] == modes[1], "{screen}");
    terminal.types("typed text is shown");
    terminal.shows("typed text is shown");
}

fn messages(http: &Http) -> Vec<Value> {
    http.get("/v1/history").json()["messages"].as_array().unwrap().clone()
}

#[test]
fn live_view_shows_what_happens() {
    let broker = Broker::start();
    let http = broker.http();
    let ([shop, web], _streams) = two_peers(&broker);
    let Some(terminal) = watch(&broker, SMALL, &[]) else { return };
    terminal.shows("2 sessions, 0 waiting");
    terminal.shows("connected");
    terminal.shows("No messages yet.");
    let question = send(&web.over(&http), "shop", "Which port?\nAnd which host?", None);
    let screen = terminal.shows("web → shop");
    assert!(screen.contains("Which port? And which host?"), "{screen}");
    terminal.shows("queued");
    terminal.shows("1 waiting");
    take(&shop.over(&http));
    terminal.shows("delivered");
    send(&shop.over(&http), "web", "8080", Some(&question));
    terminal.shows("shop → web");
    web.over(&http).post("/v1/set-summary", &json!({"summary": "Checkout page", "source": "session"}));
    terminal.shows("Checkout page");
    shop.over(&http).post("/v1/unregister", &json!({}));
    terminal.shows("gone");
    assert!(terminal.screen().lines().all(|line| line.chars().count() <= 80));
    terminal.keys(&["q"]);
    is_restored(&terminal);
}

#[test]
fn conversation_opens_and_grows() {
    let broker = Broker::start();
    let http = broker.http();
    let ([shop, web], _streams) = two_peers(&broker);
    let question = send(&web.over(&http), "shop", "Which port?\nAnd which host?", None);
    send(&web.over(&http), "shop", "unrelated", None);
    let Some(terminal) = watch(&broker, SMALL, &[]) else { return };
    terminal.shows("unrelated");
    terminal.keys(&["Up", "Enter"]);
    let screen = terminal.hides("unrelated");
    assert!(screen.contains("Conversation") && screen.contains("  And which host?"), "{screen}");
    send(&shop.over(&http), "web", "8080 on localhost", Some(&question));
    terminal.shows("8080 on localhost");
    terminal.keys(&["Escape"]);
    terminal.shows("unrelated");
}

#[test]
fn messages_are_sent_and_answered_from_the_view() {
    let broker = Broker::start();
    let http = broker.http();
    let ([shop, _web], _streams) = two_peers(&broker);
    let Some(terminal) = watch(&broker, SMALL, &[]) else { return };
    terminal.shows("2 sessions");
    terminal.keys(&["s"]);
    terminal.types("Are the tests green?");
    terminal.shows("to shop: Are the tests green?");
    terminal.keys(&["Enter"]);
    terminal.shows("cli → shop");
    let asked = take(&shop.over(&http));
    assert_eq!(asked[0]["text"], "Are the tests green?");
    send(&shop.over(&http), "cli", "All of them.", Some(&asked[0]["id"]));
    terminal.shows("All of them.");
    terminal.keys(&["a"]);
    terminal.types("Merge it");
    terminal.shows("to shop: Merge it");
    terminal.keys(&["Enter"]);
    terminal.hides("Esc cancel");
    let told = eventually("the answer is there", || take(&shop.over(&http)).into_iter().next());
    assert_eq!(told["text"], "Merge it");
    assert!(told["replyTo"].is_string(), "{told}");

    terminal.keys(&["s"]);
    terminal.types("never sent");
    terminal.shows("to shop: never sent");
    terminal.keys(&["Escape"]);
    terminal.hides("Esc cancel");
    assert_eq!(messages(&http).len(), 3);
}

#[test]
fn filter_picks_as_it_is_typed() {
    let broker = Broker::start();
    let http = broker.http();
    let ([_shop, web], _streams) = two_peers(&broker);
    for text in ["alpha one", "beta two"] {
        send(&web.over(&http), "shop", text, None);
    }
    let Some(terminal) = watch(&broker, SMALL, &[]) else { return };
    terminal.shows("beta two");
    terminal.keys(&["/"]);
    terminal.types("BET");
    let screen = terminal.hides("alpha one");
    assert!(screen.contains("beta two") && screen.contains("No session fits the filter."), "{screen}");
    terminal.types("x");
    terminal.shows("No message fits the filter.");
    terminal.keys(&["Escape"]);
    terminal.shows("alpha one");
    terminal.keys(&["Tab", "Down", "Enter"]);
    terminal.shows("filter: web");
}

#[test]
fn view_outlives_a_restart_of_the_broker() {
    let mut broker = Broker::start();
    let (_peers, streams) = two_peers(&broker);
    let Some(terminal) = watch(&broker, SMALL, &[]) else { return };
    terminal.shows("2 sessions");
    drop(streams);
    broker.terminate();
    terminal.shows("the broker is away");
    broker.launch();
    let http = broker.http();
    let web = peer(&http, "late");
    send(&web.over(&http), "shop", "after the restart", None);
    terminal.hides("the broker is away");
    terminal.shows("after the restart");
}

#[test]
fn older_messages_come_by_scrolling() {
    let broker = Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0"), ("CLAUDE_PEERS_WAITING_LIMIT", "100000")]);
    let http = broker.http();
    let ([_shop, web], _streams) = two_peers(&broker);
    let web = web.over(&http);
    (0..450).for_each(|number| _ = send(&web, "shop", &format!("number {number}."), None));
    let Some(terminal) = watch(&broker, SMALL, &[]) else { return };
    terminal.shows("number 449.");
    eventually("the oldest message is reached", || {
        terminal.keys(&["Home"]);
        terminal.screen().contains("number 0.").then_some(())
    });
    terminal.keys(&["End"]);
    terminal.shows("number 449.");
}

#[test]
fn view_fits_any_size() {
    let broker = Broker::start();
    let http = broker.http();
    let ([shop, web], _streams) = two_peers(&broker);
    send(&web.over(&http), "shop", &"日本語 🦀 wörter ".repeat(40), None);
    shop.over(&http).post("/v1/set-summary", &json!({"summary": "長い要約 ".repeat(40), "source": "session"}));
    let Some(terminal) = watch(&broker, SMALL, &[]) else { return };
    terminal.shows("長い要約");
    for (width, height) in [(20, 5), (1, 1), (200, 60), (40, 3), (80, 24)] {
        terminal.resize(width, height);
        terminal.keys(&["Enter", "Down", "Up", "PageDown", "Escape", "Tab"]);
    }
    terminal.shows("q quit");
    terminal.keys(&["q"]);
    terminal.shows("ended with 0");
}

#[test]
fn peers_cannot_steer_the_view() {
    let broker = Broker::start();
    let http = broker.http();
    let ([_shop, web], _streams) = two_peers(&broker);
    send(&web.over(&http), "shop", "\u{1b}[2J\u{1b}]0;owned\u{7}evil \u{202e}txet\u{9b}31m end", None);
    let Some(terminal) = watch(&broker, (120, 24), &[]) else { return };
    terminal.shows("2 sessions");
    let screen = terminal.shows("evil");
    assert!(screen.contains("q quit") && !screen.contains('\u{202e}'), "{screen}");
    terminal.keys(&["Enter"]);
    let screen = terminal.shows("Conversation");
    assert!(screen.contains("evil") && !screen.contains('\u{202e}'), "{screen}");
}

#[test]
fn colours_can_be_turned_off() {
    let broker = Broker::start();
    let (_peers, _streams) = two_peers(&broker);
    let has_colour = |screen: &str| screen.contains("\u{1b}[38;5;2m") || screen.contains("\u{1b}[32m");
    for (env, expected) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
        let Some(terminal) = watch(&broker, SMALL, env) else { return };
        terminal.shows("connected");
        let screen = terminal.coloured_screen();
        assert_eq!(has_colour(&screen), expected, "{env:?}: {screen:?}");
    }
}

#[test]
fn dumb_terminal_is_told_of_lines() {
    let broker = Broker::start();
    let Some(terminal) = Terminal::run(&broker, "claude-peers watch", SMALL, &[("TERM", "dumb")]) else { return };
    let screen = terminal.shows("ended with 1");
    assert!(screen.contains("claude-peers watch --plain"), "{screen}");
}

#[test]
fn signals_give_the_terminal_back() {
    let broker = Broker::start();
    for name in ["TERM", "HUP", "INT"] {
        let Some(terminal) = watch(&broker, SMALL, &[]) else { return };
        signal(terminal.child(), name);
        is_restored(&terminal);
    }
}

#[test]
fn closed_terminal_ends_the_view() {
    let broker = Broker::start();
    for command in ["claude-peers watch", "trap '' HUP; claude-peers watch"] {
        let Some(terminal) = Terminal::run(&broker, command, SMALL, &[]) else { return };
        terminal.shows("q quit");
        let child = terminal.child();
        drop(terminal);
        eventually(&format!("`{command}` ends"), || (!std::path::Path::new(&format!("/proc/{child}")).exists()).then_some(()));
    }
}

/// A process that sleeps is never switched to, however slow the machine is.
#[test]
fn view_sleeps_while_nothing_happens() {
    let broker = Broker::start();
    let (_peers, _streams) = two_peers(&broker);
    let Some(terminal) = watch(&broker, SMALL, &[]) else { return };
    terminal.shows("2 sessions");
    let status = format!("/proc/{}/status", terminal.child());
    let switches = || {
        let status = fs::read_to_string(&status).unwrap();
        status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
    };
    eventually("it sleeps for a second", || {
        let before = switches();
        std::thread::sleep(Duration::from_secs(1));
        (switches() == before).then_some(())
    });
}

#[test]
fn view_that_cannot_read_keys_ends() {
    let broker = Broker::start();
    for limit in 10..=16 {
        let command = format!("(ulimit -n {limit}; claude-peers watch)");
        let Some(terminal) = Terminal::run(&broker, &command, SMALL, &[]) else { return };
        let shown =
            || Some(terminal.screen()).filter(|screen| ["q quit", "ended with"].iter().any(|words| screen.contains(words)));
        if !eventually("it shows something", shown).contains("ended with") {
            terminal.types("q");
        }
        let screen = terminal.shows("ended with");
        assert!(screen.contains("ended with 0") || screen.contains("help:"), "{limit}: {screen}");
    }
}
