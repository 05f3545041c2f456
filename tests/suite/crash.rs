//! Accepted messages survive a SIGKILL of the broker at any moment, under load and between commit and answer.

use crate::support::{Broker, PATIENCE, Session, events::Peer, eventually, folder, http::Http, random::Random};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::{Condvar, Mutex},
    thread,
};

/// How often the broker is killed under load.
const KILLS: u64 = 200;
/// Settings that lift the limits for a load.
const UNLIMITED: [(&str, &str); 2] = [("CLAUDE_PEERS_RATE_LIMIT", "0"), ("CLAUDE_PEERS_WAITING_LIMIT", "1000000")];

#[test]
fn no_message_is_lost_over_200_kills() {
    let mut random = Random::seeded();
    let seed = Seed(random.seed());
    let (mut broker, place) = (Broker::with(&UNLIMITED), folder());
    let start = |name: &str, delivery: fn(&Broker, &std::path::Path, &str) -> Session| {
        let directory = place.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        delivery(&broker, &directory, name)
    };
    let mut sessions = [
        start("proves-its-channel", Session::start),
        start("never-proves-it", Session::start),
        start("pulls", Session::pulling),
        start("pulls-too", Session::pulling),
    ];
    let ids: Vec<String> = sessions.iter_mut().map(Session::id).collect();
    let (http, script) = (broker.http(), Peer::register(&broker.http(), "script", json!({})));

    let load = Load::default();
    let (mut views, sent) = thread::scope(|scope| {
        let (load, ids) = (&load, &ids);
        let lives: Vec<_> = sessions
            .iter_mut()
            .enumerate()
            .map(|(me, session)| {
                let random = random.branch();
                scope.spawn(move || live(session, me, ids, load, random))
            })
            .collect();
        let scripts = [("cli", http.clone()), ("script", script.over(&http))].map(|(name, http)| {
            let random = random.branch();
            scope.spawn(move || send_by_script(name, &http, ids, load, random))
        });
        kill_again_and_again(&mut broker, load, &mut random);
        let (views, mut sent): (Vec<View>, Vec<Sent>) = lives.into_iter().map(|life| life.join().unwrap()).unzip();
        sent.extend(scripts.map(|script| script.join().unwrap()));
        (views, sent)
    });

    eventually("all mail is handed over and acknowledged", || {
        sessions.iter_mut().zip(&mut views).for_each(|(session, view)| view.check(session));
        (broker.http().get("/v1/status").json()["database"]["waiting"] == 0).then_some(())
    });
    broker.restart();
    for (session, view) in sessions.iter_mut().zip(&mut views) {
        let before = view.0.len();
        view.check(session);
        view.pushes(session.pushes_so_far());
        assert_eq!(view.0.len(), before, "what was acknowledged came again after a restart: {:?}", &view.0[before..]);
    }

    let stored = texts_by_count(&broker);
    for sent in &sent {
        for (to, text) in &sent.accepted {
            assert_eq!(stored.get(text), Some(&1), "accepted, but not stored once: {text:?}");
            assert!(views[*to].0.iter().any(|shown| shown.text == *text), "accepted and stored, but never shown: {text:?}");
        }
        for text in &sent.unsure {
            assert!(stored.get(text).is_none_or(|count| *count == 1), "stored more than once: {text:?}");
        }
    }
    for (view, id) in views.iter().zip(&ids) {
        view.is_in_order_and_repeats_are_marked(id);
    }
    let accepted: usize = sent.iter().map(|sent| sent.accepted.len()).sum();
    assert!(accepted as u64 > KILLS, "only {accepted} messages were sent: this was no load");
    drop(seed);
}

/// Prints the seed if the test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("to repeat: CLAUDE_PEERS_TEST_SEED={}", self.0);
        }
    }
}

/// The state shared by the senders and the killer.
#[derive(Default)]
struct Load {
    now: Mutex<Moment>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Moment {
    /// How many sends have begun.
    begun: u64,
    /// How many brokers have started.
    brokers: u64,
    over: bool,
}

impl Load {
    fn change(&self, change: impl FnOnce(&mut Moment)) {
        change(&mut self.now.lock().unwrap());
        self.changed.notify_all();
    }

    fn now(&self) -> Moment {
        *self.now.lock().unwrap()
    }

    fn wait_for(&self, event: impl Fn(&Moment) -> bool) {
        let (now, waited) =
            self.changed.wait_timeout_while(self.now.lock().unwrap(), PATIENCE, |now| !event(now) && !now.over).unwrap();
        drop(now);
        assert!(!waited.timed_out(), "nothing goes on any more");
    }
}

/// Ends the load even if the killer panics, so that the senders stop and the failure shows.
struct Over<'a>(&'a Load);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.change(|now| now.over = true);
    }
}

fn kill_again_and_again(broker: &mut Broker, load: &Load, random: &mut Random) {
    let over = Over(load);
    let mut kills = 0;
    while kills < KILLS {
        let begun = load.now().begun + random.below(10);
        load.wait_for(|now| now.begun >= begun);
        hesitate(random);
        broker.kill();
        kills += 1;
        if random.below(8) == 0 {
            // It is also killed while it starts.
            let mut started = broker.command().spawn().unwrap();
            hesitate(random);
            started.kill().unwrap();
            started.wait().unwrap();
            kills += 1;
        }
        broker.launch();
        load.change(|now| now.brokers += 1);
    }
    drop(over);
}

/// Spins for up to some milliseconds, with short and long times equally likely.
fn hesitate(random: &mut Random) {
    let most = 1 << random.below(20);
    (0..random.below(most)).for_each(|_| std::hint::spin_loop());
}

/// One sender's view of its messages.
#[derive(Default)]
struct Sent {
    /// Accepted messages: recipient and text.
    accepted: Vec<(usize, String)>,
    /// Messages answered with an error, which may have been accepted or not.
    unsure: Vec<String>,
}

/// A message as a session saw it.
#[derive(Debug, Clone)]
struct Shown {
    id: String,
    from: String,
    text: String,
    repeat: bool,
}

/// All messages that one session saw, in the order of the server's output.
#[derive(Default)]
struct View(Vec<Shown>);

impl View {
    fn result(&mut self, session: &mut Session, result: &Value) {
        self.pushes(session.pushes_before());
        let content = &result["structuredContent"];
        let messages = [&content["incomingMessages"], &content["messages"]].into_iter().filter_map(Value::as_array).flatten();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        self.0.extend(messages.map(|message| Shown {
            id: text(&message["id"]),
            from: text(&message["from"]["id"]),
            text: text(&message["text"]),
            repeat: message["repeat"] == true,
        }));
    }

    fn pushes(&mut self, pushes: Vec<Value>) {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        self.0.extend(pushes.iter().map(|push| Shown {
            id: text(&push["meta"]["message_id"]),
            from: text(&push["meta"]["from_id"]),
            text: text(&push["content"]),
            repeat: push["meta"]["repeat"] == "true",
        }));
    }

    fn check(&mut self, session: &mut Session) {
        let result = session.call("check_messages", json!({}));
        assert_ne!(result["isError"], true, "{result}");
        self.result(session, &result);
    }

    fn is_in_order_and_repeats_are_marked(&self, recipient: &str) {
        let mut seen: HashSet<&str> = HashSet::new();
        let mut newest: HashMap<&str, u64> = HashMap::new();
        for shown in &self.0 {
            assert!(shown.text.contains(&format!(" to {recipient} ")), "{recipient} was shown another's mail: {shown:?}");
            if !seen.insert(&shown.id) {
                assert!(shown.repeat, "shown to {recipient} again without a mark: {shown:?}");
                continue;
            }
            let number: u64 = shown.text.rsplit(' ').next().unwrap().parse().unwrap();
            let before = newest.insert(&shown.from, number).unwrap_or_default();
            assert!(before < number, "{recipient} was shown number {number} of {} after number {before}", shown.from);
        }
    }
}

/// Runs a session that sends and receives. The first session also replies to messages, which proves its channel.
fn live(session: &mut Session, me: usize, ids: &[String], load: &Load, mut random: Random) -> (View, Sent) {
    let (mut view, mut sent) = (View::default(), Sent::default());
    for number in 1.. {
        if load.now().over {
            break;
        }
        let mut to = (me + 1 + random.below(3) as usize) % 4;
        let mut arguments = json!({});
        if me == 0
            && let Some(shown) = view.0.last()
            && let Some(sender) = ids.iter().position(|id| *id == shown.from)
        {
            to = sender;
            arguments["replyTo"] = shown.id.as_str().into();
        }
        let text = format!("{} to {} number {number}", ids[me], ids[to]);
        arguments["targetPeerId"] = ids[to].as_str().into();
        arguments["message"] = text.as_str().into();
        load.change(|now| now.begun += 1);
        let result = session.call("send_message", arguments);
        view.result(session, &result);
        if result["structuredContent"]["success"] == true {
            sent.accepted.push((to, text));
        } else {
            let words = result["content"][0]["text"].as_str().unwrap();
            assert!(words.contains("run `claude-peersd`"), "an error that is not about the broker's absence: {words}");
            sent.unsure.push(text);
        }
        if random.below(10) == 0 {
            let result = session.call("check_messages", json!({}));
            view.result(session, &result);
        }
    }
    (view, sent)
}

/// Runs a script that sends over HTTP and retries every message with its key until it gets an answer.
fn send_by_script(name: &str, http: &Http, ids: &[String], load: &Load, mut random: Random) -> Sent {
    let mut sent = Sent::default();
    for number in 1.. {
        if load.now().over {
            break;
        }
        let to = random.below(4) as usize;
        let text = format!("{name} to {} number {number}", ids[to]);
        let body = json!({"to": ids[to], "text": text, "key": format!("{name}-{number}")});
        load.change(|now| now.begun += 1);
        loop {
            let broker = load.now().brokers;
            match http.try_post("/v1/send", &body) {
                Ok(answer) => break drop(answer.json()),
                Err(_) => load.wait_for(|now| now.brokers > broker), // it was killed and will be restarted
            }
        }
        sent.accepted.push((to, text));
    }
    sent
}

/// Every text in the history with the number of its messages.
fn texts_by_count(broker: &Broker) -> HashMap<String, u32> {
    let (mut texts, mut before) = (HashMap::new(), String::new());
    loop {
        let page = broker.http().get(&format!("/v1/history?limit=1000{before}")).json();
        for entry in page["messages"].as_array().unwrap() {
            *texts.entry(entry["text"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => return texts,
        }
    }
}

#[test]
fn answer_lost_after_commit_makes_no_duplicate() {
    let mut broker = Broker::with(&UNLIMITED);
    let reader = Peer::register(&broker.http(), "reader", json!({}));
    for number in 0..5 {
        let message = json!({"to": reader.id, "text": format!("question {number}"), "key": format!("key-{number}")});
        // The broker commits the message and is killed before the client reads the answer.
        let mut lost = broker.http().converse();
        let headers = [("Content-Type", "application/json")];
        lost.say(&broker.http().written("POST", "/v1/send", &headers, &message.to_string())).unwrap();
        let stored = || broker.count("SELECT count(*) FROM message");
        eventually("the message is committed", || (stored() == number + 1).then_some(()));
        broker.restart();

        let again = broker.http().post("/v1/send", &message).json();
        assert_eq!((again["state"].as_str(), broker.stored().0), (Some("queued"), number + 1));
        assert_eq!(broker.http().post("/v1/send", &message).json()["messageId"], again["messageId"]);
        let other = json!({"to": reader.id, "text": "another text", "key": format!("key-{number}")});
        assert_eq!(broker.http().post("/v1/send", &other).code(), "idempotency_conflict");
    }
    let reader = reader.again(&broker.http());
    let taken = reader.over(&broker.http()).post("/v1/take", &json!({"lease": "l", "route": "check_messages"})).json();
    let texts: Vec<_> = taken["messages"].as_array().unwrap().iter().map(|message| message["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["question 0", "question 1", "question 2", "question 3", "question 4"]);
    assert!(taken["messages"].as_array().unwrap().iter().all(|message| message.get("repeat").is_none()), "{taken}");
}

#[test]
fn unacknowledged_messages_are_repeated_after_a_kill() {
    let mut broker = Broker::with(&UNLIMITED);
    let facts = json!({"delivery": "channel"});
    let (pushed, taker) = (Peer::register(&broker.http(), "pushed", facts), Peer::register(&broker.http(), "taker", json!({})));
    let mut events = pushed.follow(&broker.http());
    for to in [&pushed, &taker] {
        broker.http().post("/v1/send", &json!({"to": to.id, "text": "under way"})).json();
    }
    let (event, first_push) = events.next().unwrap();
    assert_eq!((event.as_str(), first_push.get("repeat")), ("message", None));
    let take = json!({"lease": "l", "route": "check_messages"});
    let first_take = taker.over(&broker.http()).post("/v1/take", &take).json();
    assert_eq!(first_take["messages"][0].get("repeat"), None);
    broker.restart();

    // A waiting call must not withhold the messages that the stream was carrying.
    let pushed = pushed.again(&broker.http());
    let mut waiting = pushed.over(&broker.http()).converse();
    let wait = json!({"lease": "w", "route": "check_messages", "waitSeconds": 3600});
    waiting
        .say(&pushed.over(&broker.http()).written("POST", "/v1/take", &[("Content-Type", "application/json")], &wait.to_string()))
        .unwrap();
    eventually("the call waits", || {
        let me = pushed.over(&broker.http()).get("/v1/whoami").json();
        (me["deliveryReason"] == "pull: a call of its tools waits for messages").then_some(())
    });
    let mut events = pushed.follow(&broker.http());
    let (_, again) = events.next().unwrap();
    assert_eq!(again["id"], first_push["id"], "{again}");

    // The same process gets the same messages under the same lease; another process gets them marked as repeats.
    let taker = taker.again(&broker.http());
    let again = taker.over(&broker.http()).post("/v1/take", &take).json();
    assert_eq!(again["messages"][0]["id"], first_take["messages"][0]["id"]);
    let other = Peer::register(&broker.http(), "other", json!({}));
    assert_ne!(other.id, taker.id);
}

#[test]
fn messages_of_a_lost_stream_keep_their_order() {
    let broker = Broker::with(&UNLIMITED);
    let peer = Peer::register(&broker.http(), "peer", json!({"delivery": "channel"}));
    let http = peer.over(&broker.http());
    let send = |text: &str| broker.http().post("/v1/send", &json!({"to": peer.id, "text": text})).json();
    let mut events = peer.follow(&broker.http());
    let first = send("first");
    assert_eq!(events.next().unwrap().1["id"], first["messageId"]);
    drop(events); // it never acknowledges the push
    eventually("the broker sees it", || {
        let me = http.get("/v1/whoami").json();
        (me["status"] != "connected").then_some(())
    });
    send("second");
    let take = |lease: &str| http.post("/v1/take", &json!({"lease": lease, "route": "tool_result"})).json();
    assert_eq!(take("a")["messages"], json!([]), "the second waits for the first");

    let offered = json!({"route": "channel", "messages": [{"id": first["messageId"], "outcome": "offered"}]});
    assert_eq!(http.post("/v1/acknowledge", &offered).json()["changed"], 1);
    let taken = take("b");
    let shown = |at: usize| (taken["messages"][at]["text"].as_str(), taken["messages"][at]["repeat"] == true);
    assert_eq!((shown(0), shown(1)), ((Some("first"), true), (Some("second"), false)), "{taken}");
}
