//! The stand-in model: an HTTP server on loopback that answers like the API, following a plan, and records every request.
//!
//! Each session gets an address with its own path. Every connection has a thread; one lock guards all state, and each request
//! wakes the tests that wait for one.

use crate::support::PATIENCE;
use serde_json::{Value, json};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Instant,
};

/// The model.
pub struct Model {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<Arc<Request>>,
    plans: Vec<Plan>,
    /// Cues; requests that contain one wait for their answers.
    held: Vec<String>,
    calls: usize,
    answers: usize,
    stopped: bool,
}

/// The tool calls that a session's model makes, one after the other, when it reads the cue.
struct Plan {
    session: String,
    cue: String,
    calls: Vec<Call>,
}

/// A tool call.
#[derive(Clone)]
struct Call {
    id: String,
    tool: String,
    input: Arc<Input>,
}

/// The input of a call, made from the request that the model has read.
type Input = dyn Fn(&Request) -> Value + Send + Sync;

/// A plan as the test sees it.
pub struct Task {
    /// The text that triggers it; a prompt that contains it will do.
    pub cue: String,
    /// The ids of its calls.
    pub calls: Vec<String>,
}

/// A request for the model's next response.
pub struct Request {
    /// The session it comes from.
    pub session: String,
    /// When it arrived.
    pub at: Instant,
    /// Its body.
    pub body: Value,
}

impl Request {
    /// The text of all messages.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.messages().iter().for_each(|message| say(&message["content"], &mut out));
        out
    }

    /// The text that was added since the model's last response.
    pub fn news(&self) -> String {
        let mut out = String::new();
        let since = self.messages().iter().rposition(|message| message["role"] == "assistant").map_or(0, |place| place + 1);
        self.messages()[since..].iter().for_each(|message| say(&message["content"], &mut out));
        out
    }

    /// The result of a tool call, if the messages contain it.
    pub fn result(&self, call: &str) -> Option<String> {
        let blocks = self.messages().iter().filter_map(|message| message["content"].as_array()).flatten();
        let result = blocks.into_iter().find(|block| block["type"] == "tool_result" && block["tool_use_id"] == call)?;
        let mut out = String::new();
        say(&result["content"], &mut out);
        Some(out)
    }

    /// The names of the tools whose schemas the request contains.
    pub fn tools(&self) -> Vec<&str> {
        let tools = self.body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
        tools.iter().filter_map(|tool| tool["name"].as_str()).collect()
    }

    fn messages(&self) -> &[Value] {
        self.body["messages"].as_array().map(Vec::as_slice).unwrap_or_default()
    }
}

/// The text of a message's content, which is a string or a list of blocks with text or content.
fn say(content: &Value, out: &mut String) {
    match content {
        Value::String(text) => {
            out.push_str(text);
            out.push('\n');
        }
        Value::Array(blocks) => blocks.iter().for_each(|block| say(block, out)),
        Value::Object(block) => ["text", "content"].iter().filter_map(|key| block.get(*key)).for_each(|inner| say(inner, out)),
        _ => {}
    }
}

impl Model {
    /// Starts a model on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                if serving.state().stopped {
                    break;
                }
                let serving = serving.clone();
                // A session that ends drops its connections.
                thread::spawn(move || connection.and_then(|connection| serving.serve(&connection)));
            }
        });
        Self { port, shared }
    }

    /// The address for a session.
    pub fn url(&self, session: &str) -> String {
        format!("http://127.0.0.1:{}/{session}", self.port)
    }

    /// Plans tool calls that a session makes once it reads the task's cue.
    pub fn plan(&self, session: &str, calls: &[(&str, Value)]) -> Task {
        let mut state = self.shared.state();
        let cue = format!("Please do task {}.", state.plans.len());
        let fixed = |input: &Value| -> Arc<Input> {
            let input = input.clone();
            Arc::new(move |_| input.clone())
        };
        let calls = calls.iter().map(|(tool, input)| ((*tool).to_owned(), fixed(input))).collect();
        state.plan(session, cue, calls)
    }

    /// Plans one tool call that a session makes once it reads `cue` anywhere; `input` makes its input from the request.
    pub fn react(&self, session: &str, cue: &str, tool: &str, input: impl Fn(&Request) -> Value + Send + Sync + 'static) -> Task {
        self.shared.state().plan(session, cue.to_owned(), vec![(tool.to_owned(), Arc::new(input))])
    }

    /// Waits for a matching request of a session; earlier requests count.
    #[track_caller]
    pub fn request(&self, session: &str, what: &str, fits: impl Fn(&Request) -> bool) -> Arc<Request> {
        let start = Instant::now();
        let (mut state, mut seen) = (self.shared.state(), 0);
        loop {
            let new = &state.requests[seen..];
            if let Some(request) = new.iter().find(|request| request.session == session && fits(request)) {
                return request.clone();
            }
            seen = state.requests.len();
            let Some(left) = PATIENCE.checked_sub(start.elapsed()) else {
                let news: Vec<String> =
                    state.requests.iter().map(|request| format!("{}: {:.400}", request.session, request.news())).collect();
                drop(state);
                panic!("waited {PATIENCE:?} in vain for a request of {session}: {what}; there came {news:#?}");
            };
            state = self.shared.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// All requests of a session so far.
    pub fn requests(&self, session: &str) -> Vec<Arc<Request>> {
        self.shared.state().requests.iter().filter(|request| request.session == session).cloned().collect()
    }

    /// Delays the answers to requests that contain this cue until [`Model::release`].
    pub fn hold(&self, cue: &str) {
        self.shared.state().held.push(cue.to_owned());
    }

    /// Stops delaying the answers.
    pub fn release(&self, cue: &str) {
        self.shared.state().held.retain(|held| held != cue);
        self.shared.changed.notify_all();
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.stopped = true;
        state.held.clear();
        drop(state);
        self.shared.changed.notify_all();
        drop(TcpStream::connect(("127.0.0.1", self.port))); // wakes the listener
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Reads one request and answers it.
    fn serve(&self, connection: &TcpStream) -> io::Result<()> {
        let (mut reader, mut line, mut length) = (BufReader::new(connection), String::new(), 0);
        reader.read_line(&mut line)?;
        let at = Instant::now();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let path = line.split(' ').nth(1).unwrap_or_default();
        let (session, rest) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        let (kind, answer) = match rest {
            "v1/messages?beta=true" => {
                let request = Arc::new(Request { session: session.to_owned(), at, body: serde_json::from_slice(&body)? });
                let (number, call) = self.answer(&request);
                ("text/event-stream", events(&request, number, call.as_ref()))
            }
            _ => ("application/json", json!({"input_tokens": 1}).to_string()),
        };
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
        let mut writer = connection;
        writer.write_all(format!("{head}{answer}").as_bytes())
    }

    /// Records a request. Returns the number of its answer and the next call of its plan, once no held cue delays it.
    fn answer(&self, request: &Arc<Request>) -> (usize, Option<Call>) {
        let mut state = self.state();
        state.answers += 1;
        let number = state.answers;
        if request.tools().is_empty() {
            return (number, None); // a title or another side task
        }
        state.requests.push(request.clone());
        self.changed.notify_all();
        let text = request.text();
        let held = |state: &mut State| state.held.iter().any(|cue| text.contains(cue));
        let state = self.changed.wait_while(state, held).unwrap();
        (number, state.next(request))
    }
}

impl State {
    fn plan(&mut self, session: &str, cue: String, calls: Vec<(String, Arc<Input>)>) -> Task {
        let calls = calls.into_iter().map(|(tool, input)| {
            self.calls += 1;
            Call { id: format!("toolu_{:04}", self.calls), tool, input }
        });
        let calls: Vec<Call> = calls.collect();
        let task = Task { cue: cue.clone(), calls: calls.iter().map(|call| call.id.clone()).collect() };
        self.plans.push(Plan { session: session.to_owned(), cue, calls });
        task
    }

    /// The next call: the first one not made yet of the plan whose cue was read last.
    fn next(&self, request: &Request) -> Option<Call> {
        let blocks: Vec<&Value> =
            request.messages().iter().filter_map(|message| message["content"].as_array()).flatten().collect();
        let made = |call: &&Call| blocks.iter().any(|block| block["type"] == "tool_use" && block["id"] == call.id.as_str());
        let text = request.text();
        let plans = self.plans.iter().filter(|plan| plan.session == request.session);
        let (_, plan) = plans.filter_map(|plan| Some((text.rfind(&plan.cue)?, plan))).max_by_key(|(place, _)| *place)?;
        plan.calls.iter().find(|call| !made(call)).cloned()
    }
}

/// A streamed answer in the API's format: a tool call, or a word that ends the turn.
fn events(request: &Request, number: usize, call: Option<&Call>) -> String {
    let (block, delta, reason) = match call {
        None => (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": "OK."}), "end_turn"),
        Some(Call { id, tool, input }) => (
            json!({"type": "tool_use", "id": id, "name": tool, "input": {}}),
            json!({"type": "input_json_delta", "partial_json": input(request).to_string()}),
            "tool_use",
        ),
    };
    let usage = json!({"input_tokens": 1, "output_tokens": 1});
    let message = json!({
        "id": format!("msg_{number:04}"), "type": "message", "role": "assistant", "content": [], "model": request.body["model"],
        "stop_reason": null, "stop_sequence": null, "usage": usage,
    });
    [
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": {"output_tokens": 1}}),
        json!({"type": "message_stop"}),
    ]
    .iter()
    .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default()))
    .collect()
}
