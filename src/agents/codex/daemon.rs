//! The connection to Codex's daemon: finds out which thread is ours, and puts messages into it.
//!
//! The daemon speaks WebSocket, one JSON message in each frame.
//!
//! - A message starts a turn, or joins the turn that runs. The person sees its title. The model reads its text as the output of a tool,
//!   never as the user's words.
//! - Codex adds title and text to the thread together, for the model's next request. The title's item in the thread proves both.
//! - The daemon reports a thread's items only to those who have joined the thread, and keeps it loaded for them. So we leave it as soon
//!   as the fate of our messages is known.

use super::context::context;
use crate::{
    agents::{Fate, socket},
    platform::random,
};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    fs, io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

/// The key in a call's `_meta` with the thread's id.
pub const THREAD: &str = "threadId";
/// The key in a call's `_meta`, and the field under it, that says where the thread comes from.
pub const THREAD_SOURCE: [&str; 2] = ["x-codex-turn-metadata", "thread_source"];
/// The source of a subagent's thread.
pub const SUBAGENT: &str = "subagent";

/// A tool that our server does not have. All that counts is that the call names its thread, as every call does.
const INTRODUCTION: &str = "introduce_thread";

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first pause before joining a new thread again.
const FIRST_LOOK: Duration = Duration::from_millis(10);
/// How many of a turn's last items are searched for ours.
const LAST_ITEMS: u32 = 50;
/// How long after its end a turn may still miss items in the daemon's list. The daemon writes them to a file first.
const SETTLED: Duration = Duration::from_secs(2);
/// The length of the random name of a message.
const NAME_LENGTH: usize = 24;

type Response = Result<Value, String>;

/// The connection to the daemon.
pub struct Daemon {
    out: tokio::sync::Mutex<SplitSink<WebSocketStream<UnixStream>, Message>>,
    closed: CancellationToken,
    /// Locked for moments only.
    exchange: Mutex<Exchange>,
    /// How many of our messages wait for their fate. The thread is joined while there are any.
    waiting: tokio::sync::Mutex<usize>,
}

#[derive(Default)]
struct Exchange {
    requests: u64,
    /// The requests without an answer.
    answers: HashMap<u64, oneshot::Sender<Response>>,
    listeners: Vec<mpsc::UnboundedSender<ThreadEvent>>,
}

/// What happened in a thread.
#[derive(Clone)]
enum ThreadEvent {
    /// The item of a message, by our name for it, is in the thread.
    Item(String),
    /// This turn has ended.
    End(String),
}

impl Daemon {
    /// Connects to the daemon that listens at `path`, which must be the process `daemon`.
    ///
    /// # Errors
    /// If another process listens there, or it does not speak the protocol that is needed.
    pub async fn connect(path: &Path, daemon: u32) -> io::Result<Arc<Self>> {
        let (stream, pid) = socket::connect(path).await?;
        if pid != daemon {
            return Err(io::Error::other(format!("process {pid} listens there, not {daemon}")));
        }
        let builder = ClientBuilder::new().uri("ws://localhost/").map_err(io::Error::other)?;
        let opened = timeout(PATIENCE, builder.connect_on(stream)).await.map_err(|_| io::ErrorKind::TimedOut)?;
        let (out, reader) = opened.map_err(io::Error::other)?.0.split();
        let daemon = Arc::new(Self {
            out: out.into(),
            closed: CancellationToken::new(),
            exchange: Mutex::default(),
            waiting: tokio::sync::Mutex::default(),
        });
        tokio::spawn(daemon.clone().read(reader));
        daemon.open().await.inspect_err(|_| daemon.closed.cancel())?;
        Ok(daemon)
    }

    async fn open(&self) -> io::Result<()> {
        let client = json!({"name": "claude-peers", "title": null, "version": crate::wire::VERSION});
        let capabilities = json!({"experimentalApi": true});
        self.call("initialize", json!({"clientInfo": client, "capabilities": capabilities})).await?;
        self.say(&json!({"method": "initialized"})).await?;
        // A daemon that does not know our kind of context would drop the text without a word. It complains about an unknown kind only
        // if it knows the others. No turn starts, because there is no such thread.
        let context = json!({"": {"kind": "claude-peers", "value": ""}});
        match self.call("turn/start", json!({THREAD: "", "input": [], "additionalContext": context})).await {
            Err(error) if error.to_string().contains("`untrusted`") => Ok(()),
            _ => Err(io::Error::other("this version of Codex does not take messages as untrusted context")),
        }
    }

    /// Tells each server named `server` of the threads in `cwd` which thread it serves, ours among them.
    ///
    /// # Errors
    /// If the daemon does not tell its threads.
    pub async fn introduce(&self, server: &str, cwd: &Path) -> io::Result<()> {
        let loaded = self.call("thread/loaded/list", json!({})).await?;
        for id in loaded["data"].as_array().into_iter().flatten() {
            let read = self.call("thread/read", json!({THREAD: id})).await?;
            let (source, its_cwd) = (&read["thread"]["threadSource"], read["thread"]["cwd"].as_str().unwrap_or_default());
            let is_session = source.is_null() || source == "user"; // a subagent has the server of the session that started it
            if is_session && fs::canonicalize(its_cwd).is_ok_and(|its_cwd| its_cwd == cwd) {
                let call = json!({THREAD: id, "server": server, "tool": INTRODUCTION, "arguments": {}, "_meta": {THREAD: id}});
                self.request("mcpServer/tool/call", call).await?; // the answer comes when that server has started
            }
        }
        Ok(())
    }

    /// Resolves when the connection has ended.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Hands over a text for this thread, with a title for the person. What is returned waits for its fate.
    ///
    /// # Errors
    /// If it was not handed over.
    pub async fn show(self: &Arc<Self>, thread: &str, title: &str, text: &str) -> io::Result<impl Future<Output = Fate> + use<>> {
        let name = random::token(NAME_LENGTH);
        let (listener, events) = mpsc::unbounded_channel();
        self.exchange().listeners.push(listener);
        let input = json!([{"type": "text", "text": title, "text_elements": []}]);
        let context = context(&name, text);
        let start = json!({THREAD: thread, "clientUserMessageId": name, "input": input, "additionalContext": context});
        let answer = timeout(PATIENCE, self.request("turn/start", start).await?).await;
        let turn = match answer {
            Ok(Ok(answer)) => answer.map_err(io::Error::other)?["turn"]["id"].as_str().map(str::to_owned),
            _ => None, // it may have arrived
        };
        let frame = HandedOver { thread: thread.to_owned(), name, turn };
        Ok(self.clone().fate(frame, events))
    }

    /// Waits for what becomes of this message.
    async fn fate(self: Arc<Self>, frame: HandedOver, events: mpsc::UnboundedReceiver<ThreadEvent>) -> Fate {
        *self.waiting.lock().await += 1;
        let fate = self.follow(&frame, events).await;
        self.leave(&frame.thread).await;
        fate
    }

    async fn follow(&self, frame: &HandedOver, mut events: mpsc::UnboundedReceiver<ThreadEvent>) -> Fate {
        // A new thread cannot be joined before its first item.
        let began = Instant::now();
        while let Err(error) = self.join(&frame.thread).await {
            if self.is_closed() || began.elapsed() > PATIENCE {
                return Err(error.to_string());
            }
            sleep((began.elapsed() / 8).max(FIRST_LOOK)).await;
        }
        // Its item, or the end of its turn, may have come before this client joined.
        let has_ended = self.is_idle(&frame.thread).await;
        if self.has(frame).await {
            return Ok(());
        }
        if has_ended {
            return self.has_after_all(frame).await;
        }
        loop {
            match events.recv().await {
                Some(ThreadEvent::Item(name)) if name == frame.name => return Ok(()),
                Some(ThreadEvent::End(turn)) if frame.turn.as_ref() == Some(&turn) => return self.has_after_all(frame).await,
                Some(_) => {}
                None => return Err("the daemon is gone".to_owned()),
            }
        }
    }

    /// What became of a message whose turn has ended: the daemon may list the last items a moment later.
    async fn has_after_all(&self, frame: &HandedOver) -> Fate {
        let ended = Instant::now();
        while !self.has(frame).await {
            if self.is_closed() || ended.elapsed() > SETTLED {
                return Err("its turn ended first".to_owned());
            }
            sleep((ended.elapsed() / 8).max(FIRST_LOOK)).await;
        }
        Ok(())
    }

    /// Whether no turn runs in the thread.
    async fn is_idle(&self, thread: &str) -> bool {
        let read = self.call("thread/read", json!({THREAD: thread})).await;
        read.is_ok_and(|read| read["thread"]["status"]["type"] == "idle")
    }

    /// Whether the message is among the last items of its turn.
    async fn has(&self, frame: &HandedOver) -> bool {
        let newest = json!({THREAD: frame.thread, "turnId": frame.turn, "sortDirection": "desc", "limit": LAST_ITEMS});
        if let Ok(items) = self.call("thread/items/list", newest).await {
            let items = items["data"].as_array().into_iter().flatten();
            return items.into_iter().any(|entry| entry["item"]["clientId"] == frame.name.as_str());
        }
        // A thread that an older Codex began has only a list of turns.
        let newest = json!({THREAD: frame.thread, "limit": 1, "itemsView": "full"});
        let Ok(turns) = self.call("thread/turns/list", newest).await else { return false };
        let items = turns["data"][0]["items"].as_array().into_iter().flatten();
        items.into_iter().any(|item| item["clientId"] == frame.name.as_str())
    }

    async fn join(&self, thread: &str) -> io::Result<()> {
        let _waiting = self.waiting.lock().await; // not while another leaves
        self.call("thread/resume", json!({THREAD: thread, "excludeTurns": true})).await.map(drop)
    }

    async fn leave(&self, thread: &str) {
        let mut waiting = self.waiting.lock().await;
        *waiting -= 1;
        if *waiting == 0 {
            _ = self.call("thread/unsubscribe", json!({THREAD: thread})).await; // fails only if it is gone
        }
    }

    async fn call(&self, method: &str, params: Value) -> io::Result<Value> {
        let answer = timeout(PATIENCE, self.request(method, params).await?).await.map_err(|_| io::ErrorKind::TimedOut)?;
        answer.map_err(|_| io::ErrorKind::UnexpectedEof)?.map_err(|why| io::Error::other(format!("{method}: {why}")))
    }

    /// Makes a request. The receiver gets the answer.
    async fn request(&self, method: &str, params: Value) -> io::Result<oneshot::Receiver<Response>> {
        let (sender, answer) = oneshot::channel();
        let id = {
            let mut exchange = self.exchange();
            exchange.requests += 1;
            let id = exchange.requests;
            exchange.answers.insert(id, sender);
            id
        };
        self.say(&json!({"id": id, "method": method, "params": params})).await?;
        Ok(answer)
    }

    async fn say(&self, message: &Value) -> io::Result<()> {
        if self.is_closed() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let say = async { self.out.lock().await.send(Message::text(message.to_string())).await };
        timeout(PATIENCE, say).await.map_err(|_| io::ErrorKind::TimedOut)?.map_err(io::Error::other)
    }

    /// Follows what the daemon says, to its end. Requests of the daemon are for the person's terminal and get no answer here.
    async fn read(self: Arc<Self>, mut reader: SplitStream<WebSocketStream<UnixStream>>) {
        while let Some(Some(Ok(message))) = self.closed.run_until_cancelled(reader.next()).await {
            let Some(text) = message.as_text() else { continue };
            let Ok(mut message) = serde_json::from_str::<Map<String, Value>>(text) else { break };
            match (message.get("method").and_then(Value::as_str), message.get("id").and_then(Value::as_u64)) {
                (None, Some(id)) => {
                    let why = message.get("error").map(|error| error["message"].as_str().unwrap_or_default().to_owned());
                    let answer = why.map_or_else(|| Ok(message.remove("result").unwrap_or_default()), Err);
                    if let Some(waiting) = self.exchange().answers.remove(&id) {
                        _ = waiting.send(answer); // nobody may wait any more
                    }
                }
                (Some(method), None) => {
                    if let Some(event) = message.get("params").and_then(|params| event(method, params)) {
                        self.exchange().listeners.retain(|listener| listener.send(event.clone()).is_ok());
                    }
                }
                _ => {}
            }
        }
        self.closed.cancel();
        *self.exchange() = Exchange::default();
    }

    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message that was handed over.
struct HandedOver {
    thread: String,
    name: String,
    /// The turn that was to show it.
    turn: Option<String>,
}

fn event(method: &str, params: &Value) -> Option<ThreadEvent> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match method {
        "item/started" | "item/completed" => text(&params["item"]["clientId"]).map(ThreadEvent::Item),
        "turn/completed" => text(&params["turn"]["id"]).map(ThreadEvent::End),
        _ => None,
    }
}

/// The protocols of other versions of Codex. `tests/agents` uses the real one.
#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
    use tokio::net::UnixListener;
    use tokio_websockets::ServerBuilder;

    /// A daemon that answers each request as `answer` says, and nothing for none.
    async fn connect(answer: fn(&str, &Value) -> Option<Value>) -> io::Result<Arc<Daemon>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path)?;
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (_, mut socket) = ServerBuilder::new().accept(stream).await.expect("a handshake");
            while let Some(Ok(message)) = socket.next().await {
                let request: Value = serde_json::from_str(message.as_text().expect("a text")).expect("JSON");
                let Some(mut answer) = answer(request["method"].as_str().expect("a method"), &request["params"]) else {
                    continue;
                };
                answer["id"] = request["id"].clone();
                socket.send(Message::text(answer.to_string())).await.expect("the answer is taken");
            }
        });
        Daemon::connect(&path, std::process::id()).await
    }

    fn knows_our_kind(method: &str, params: &Value) -> Option<Value> {
        match method {
            "initialized" => None,
            "turn/start" if params[THREAD] == "" => {
                Some(json!({"error": {"message": "unknown variant `claude-peers`, expected `untrusted` or `application`"}}))
            }
            "turn/start" => Some(json!({"result": {"turn": {"id": "turn 1"}}})),
            "thread/items/list" => Some(json!({"error": {"message": "not supported yet"}})),
            _ => Some(json!({"result": {}})),
        }
    }

    #[tokio::test]
    async fn daemon_without_our_kind_of_context_is_refused() {
        let ignores_context = |method: &str, params: &Value| match method {
            "turn/start" => Some(json!({"error": {"message": "invalid thread id"}})),
            method => knows_our_kind(method, params),
        };
        let refused = connect(ignores_context).await.err().expect("it is refused");
        assert!(refused.to_string().contains("untrusted context"), "{refused}");
        assert!(connect(knows_our_kind).await.is_ok());
    }

    #[tokio::test]
    async fn refused_message_is_not_handed_over() {
        let has_no_thread = |method: &str, params: &Value| match method {
            "turn/start" if params[THREAD] == "gone" => Some(json!({"error": {"message": "thread not found: gone"}})),
            method => knows_our_kind(method, params),
        };
        let daemon = connect(has_no_thread).await.expect("a connection");
        let refused = daemon.show("gone", "title", "text").await.err().expect("it is refused");
        assert!(refused.to_string().contains("not found"), "{refused}");
    }

    /// Its last turn has all items that were named.
    fn has_old_threads(method: &str, params: &Value) -> Option<Value> {
        static ITEMS: Mutex<Vec<Value>> = Mutex::new(Vec::new());
        let mut items = ITEMS.lock().unwrap_or_else(PoisonError::into_inner);
        if method == "turn/start" {
            items.push(json!({"clientId": params["clientUserMessageId"]}));
        }
        match method {
            "thread/turns/list" => Some(json!({"result": {"data": [{"items": *items}]}})),
            method => knows_our_kind(method, params),
        }
    }

    #[tokio::test]
    async fn old_threads_show_items_in_turns() {
        let daemon = connect(has_old_threads).await.expect("a connection");
        let fate = daemon.show("old", "title", "text").await.expect("it is handed over");
        assert_eq!(fate.await, Ok(()));
    }

    #[tokio::test]
    async fn new_thread_is_joined_once_it_can_be() {
        static REFUSED: AtomicBool = AtomicBool::new(false);
        let is_new = |method: &str, params: &Value| match method {
            "thread/resume" if !REFUSED.swap(true, Relaxed) => Some(json!({"error": {"message": "no rollout found"}})),
            method => has_old_threads(method, params),
        };
        let daemon = connect(is_new).await.expect("a connection");
        let fate = daemon.show("new", "title", "text").await.expect("it is handed over");
        assert_eq!(fate.await, Ok(()));
    }

    #[tokio::test]
    async fn item_that_is_listed_after_the_end_of_its_turn_counts() {
        static LOOKS: AtomicU32 = AtomicU32::new(0);
        let lists_late = |method: &str, params: &Value| match method {
            "thread/read" => Some(json!({"result": {"thread": {"status": {"type": "idle"}}}})),
            "thread/turns/list" if LOOKS.fetch_add(1, Relaxed) < 3 => Some(json!({"result": {"data": [{"items": []}]}})),
            method => has_old_threads(method, params),
        };
        let daemon = connect(lists_late).await.expect("a connection");
        let fate = daemon.show("late", "title", "text").await.expect("it is handed over");
        assert_eq!(fate.await, Ok(()));
    }

    #[tokio::test]
    async fn end_of_a_turn_before_the_thread_is_joined_counts() {
        let has_ended = |method: &str, params: &Value| match method {
            "thread/read" => Some(json!({"result": {"thread": {"status": {"type": "idle"}}}})),
            method => knows_our_kind(method, params),
        };
        let daemon = connect(has_ended).await.expect("a connection");
        let fate = daemon.show("ended", "title", "text").await.expect("it is handed over");
        assert_eq!(fate.await, Err("its turn ended first".to_owned()));
    }
}
