//! A stand-in model on loopback. It speaks four formats (OpenAI's Responses and chat completions, Anthropic's and Gemini's), makes the
//! planned tool calls one by one, and records what it is shown.

use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        mpsc::{Receiver, channel},
    },
    thread,
    time::Instant,
};

use crate::support::eventually;

pub struct Model {
    port: u16,
    shared: Arc<Mutex<Plan>>,
}

/// What happens after so many calls.
type Meanwhile = (usize, Box<dyn FnOnce() + Send>);

#[derive(Default)]
struct Plan {
    calls: VecDeque<(String, Value)>,
    /// The calls are only made in answer to a request with this text.
    cue: String,
    meanwhile: Option<Meanwhile>,
    /// The last request that offered our tools, and when it came.
    last: String,
    came: Option<Instant>,
    /// How many calls it has made.
    made: usize,
    /// The last of them, until a request shows that it was taken: Codex begins a request anew if a message comes in between.
    open: Option<(String, Value)>,
}

/// A format of requests and answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Responses,
    Chat,
    Messages,
    Gemini,
}

/// A tool that a request offers: its name, and the namespace that holds it.
struct Tool {
    name: String,
    namespace: Option<String>,
}

impl Model {
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (port, shared) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Plan::default())));
        let serving = shared.clone();
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let serving = serving.clone();
                thread::spawn(move || serve(&connection, &serving));
            }
        });
        Self { port, shared }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn state(&self) -> MutexGuard<'_, Plan> {
        self.shared.lock().unwrap()
    }

    /// Plans these tool calls.
    pub fn plan(&self, calls: &[(&str, Value)]) {
        self.plan_at("", calls);
    }

    /// Plans these tool calls, for when it is shown this text.
    pub fn plan_at(&self, cue: &str, calls: &[(&str, Value)]) {
        let mut state = self.state();
        (state.cue, state.open) = (cue.to_owned(), None);
        state.calls = calls.iter().map(|(tool, input)| ((*tool).to_owned(), input.clone())).collect();
    }

    /// Plans these tool calls; `meanwhile` runs once the result of the first has come. The receiver gets what it returns.
    pub fn plan_with(&self, calls: &[(&str, Value)], meanwhile: impl FnOnce() -> Value + Send + 'static) -> Receiver<Value> {
        self.plan(calls);
        self.plan_after(1, meanwhile)
    }

    /// Runs `meanwhile` before the answer to the first request after so many calls. The receiver gets what it returns.
    pub fn plan_after(&self, calls: usize, meanwhile: impl FnOnce() -> Value + Send + 'static) -> Receiver<Value> {
        let (sender, receiver) = channel();
        self.state().meanwhile = Some((calls, Box::new(move || drop(sender.send(meanwhile())))));
        receiver
    }

    /// How many of the planned calls were not made.
    pub fn left(&self) -> usize {
        self.state().calls.len()
    }

    /// When the last request came, which has this text. Waits for it.
    #[allow(dead_code, reason = "for the benchmark")]
    pub fn arrived(&self, text: &str) -> Instant {
        eventually("the model is shown the text", || {
            let plan = self.state();
            plan.came.filter(|_| plan.last.contains(text))
        })
    }

    /// The whole text of the last request that offered our tools.
    pub fn last(&self) -> String {
        self.state().last.clone()
    }
}

/// Reads one request and answers it.
fn serve(connection: &TcpStream, plan: &Mutex<Plan>) -> io::Result<()> {
    let (mut reader, mut line) = (BufReader::new(connection), String::new());
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
    let body: Value = serde_json::from_slice(&read_body(&mut reader)?).unwrap_or_default();
    let format = match path.as_str() {
        path if path.ends_with("/responses") => Some(Format::Responses),
        path if path.ends_with("/chat/completions") => Some(Format::Chat),
        path if path.ends_with("/v1/messages") => Some(Format::Messages),
        path if path.ends_with("enerateContent") => Some(Format::Gemini),
        _ => None,
    };
    let is_streamed = path.ends_with(":streamGenerateContent") || path.ends_with("/v1/messages") || body["stream"] == true;
    let answer = format.map(|format| answer(format, &body, is_streamed, &mut plan.lock().unwrap()));
    let kind = if is_streamed { "text/event-stream" } else { "application/json" };
    let answer = answer.unwrap_or_else(|| {
        json!({"object": "list", "data": [{"id": "stand-in", "object": "model"}], "models": [], "totalTokens": 1}).to_string()
    });
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
    let mut writer = connection;
    writer.write_all(format!("{head}{answer}").as_bytes())
}

/// The rest of a request: its headers, then its body, whole or in chunks.
fn read_body(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let (mut length, mut is_chunked, mut body) = (0, false, Vec::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim_end().to_ascii_lowercase();
        let Some((name, value)) = header.split_once(':') else { break };
        match name {
            "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
            "transfer-encoding" => is_chunked = value.contains("chunked"),
            _ => {}
        }
    }
    while is_chunked {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        is_chunked = size > 0;
        reader.by_ref().take(size).read_to_end(&mut body)?;
        reader.read_line(&mut String::new())?;
    }
    reader.take(length).read_to_end(&mut body)?;
    Ok(body)
}

/// The tools that a request offers.
fn tools(format: Format, body: &Value) -> Vec<Tool> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let tool = |name: &Value, namespace: Option<String>| Some(Tool { name: text(name)?, namespace });
    list(&body["tools"])
        .iter()
        .flat_map(|offered| match format {
            Format::Responses if offered["type"] == "namespace" => {
                list(&offered["tools"]).iter().filter_map(|inner| tool(&inner["name"], text(&offered["name"]))).collect()
            }
            Format::Responses => tool(&offered["name"], None).into_iter().collect::<Vec<_>>(),
            Format::Chat => tool(&offered["function"]["name"], None).into_iter().collect(),
            // Claude Code offers the tools of MCP servers only when asked, and lets them be called before.
            Format::Messages => ["list_peers", "send_message", "set_summary", "check_messages"]
                .map(|name| Tool { name: format!("mcp__claude-peers__{name}"), namespace: None })
                .into(),
            Format::Gemini => {
                list(&offered["functionDeclarations"]).iter().filter_map(|inner| tool(&inner["name"], None)).collect()
            }
        })
        .collect()
}

/// The answer to a request: the next planned call, if the request offers our tools, or a word that ends the turn.
fn answer(format: Format, body: &Value, is_streamed: bool, plan: &mut Plan) -> String {
    let tools = tools(format, body);
    if tools.iter().any(|tool| tool.name.ends_with("list_peers")) {
        (plan.last, plan.came) = (body.to_string(), Some(Instant::now()));
        let made = plan.made;
        if let Some((_, meanwhile)) = plan.meanwhile.take_if(|(calls, _)| *calls == made) {
            meanwhile();
        }
    }
    let text = body.to_string();
    if format == Format::Responses
        && let Some(open) = plan.open.take()
        && !text.contains(&format!("\"call_{}\"", plan.made))
        && tools.iter().any(|tool| tool.name == open.0)
    {
        plan.made -= 1;
        plan.calls.push_front(open);
    }
    let is_cued = text.contains(&plan.cue);
    let planned =
        plan.calls.front().filter(|_| is_cued).and_then(|(name, _)| tools.iter().find(|tool| tool.name.ends_with(name.as_str())));
    let call = planned.and_then(|tool| Some((tool, plan.calls.pop_front()?.1)));
    plan.made += usize::from(call.is_some());
    plan.open = call.as_ref().map(|(tool, input)| (tool.name.clone(), input.clone())).or_else(|| plan.open.take());
    let number = plan.made;
    match format {
        Format::Responses => responses(call, number),
        Format::Chat => chat(call, number, is_streamed),
        Format::Messages => messages(call, number),
        Format::Gemini => gemini(call, is_streamed),
    }
}

type Call<'a> = Option<(&'a Tool, Value)>;

fn events(events: &[Value]) -> String {
    let line = |event: &Value| match event["type"].as_str() {
        Some(kind) => format!("event: {kind}\ndata: {event}\n\n"),
        None => format!("data: {event}\n\n"),
    };
    events.iter().map(line).collect()
}

fn responses(call: Call<'_>, number: usize) -> String {
    let item = match call {
        None => json!({"type": "message", "id": format!("msg_{number}"), "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "ok", "annotations": []}]}),
        Some((tool, input)) => json!({"type": "function_call", "id": format!("fc_{number}"), "call_id": format!("call_{number}"),
            "name": tool.name, "namespace": tool.namespace, "arguments": input.to_string(), "status": "completed"}),
    };
    let usage = json!({"input_tokens": 1, "output_tokens": 1, "total_tokens": 2});
    let response =
        json!({"id": format!("resp_{number}"), "object": "response", "status": "completed", "output": [item], "usage": usage});
    events(&[
        json!({"type": "response.created", "response": {"id": response["id"]}}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": response}),
    ])
}

fn chat(call: Call<'_>, number: usize, is_streamed: bool) -> String {
    let (reason, said) = match call {
        None => ("stop", json!({"role": "assistant", "content": "ok"})),
        Some((tool, input)) => {
            let function = json!({"name": tool.name, "arguments": input.to_string()});
            let call = json!({"index": 0, "id": format!("call_{number}"), "type": "function", "function": function});
            ("tool_calls", json!({"role": "assistant", "content": "", "tool_calls": [call]}))
        }
    };
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2});
    let whole = |kind: &str, key: &str, said: &Value, reason: Value| {
        json!({"id": format!("chatcmpl-{number}"), "object": kind, "created": 1, "model": "stand-in", "usage": usage,
            "choices": [{"index": 0, key: said, "finish_reason": reason}]})
    };
    if !is_streamed {
        return whole("chat.completion", "message", &said, reason.into()).to_string();
    }
    let chunk = "chat.completion.chunk";
    events(&[whole(chunk, "delta", &said, Value::Null), whole(chunk, "delta", &json!({}), reason.into())]) + "data: [DONE]\n\n"
}

fn messages(call: Call<'_>, number: usize) -> String {
    let (block, delta, reason) = match call {
        None => (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": "ok"}), "end_turn"),
        Some((tool, input)) => (
            json!({"type": "tool_use", "id": format!("toolu_{number:04}"), "name": tool.name, "input": {}}),
            json!({"type": "input_json_delta", "partial_json": input.to_string()}),
            "tool_use",
        ),
    };
    let usage = json!({"input_tokens": 1, "output_tokens": 1});
    let message = json!({"id": format!("msg_{number:04}"), "type": "message", "role": "assistant", "content": [], "model": "stand-in",
        "stop_reason": null, "stop_sequence": null, "usage": usage});
    events(&[
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": {"output_tokens": 1}}),
        json!({"type": "message_stop"}),
    ])
}

fn gemini(call: Call<'_>, is_streamed: bool) -> String {
    let part = match call {
        None => json!({"text": "ok"}),
        Some((tool, input)) => json!({"functionCall": {"name": tool.name, "args": input}}),
    };
    let usage = json!({"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2});
    let content = json!({"role": "model", "parts": [part]});
    let answer = json!({"candidates": [{"content": content, "finishReason": "STOP", "index": 0}], "usageMetadata": usage});
    if is_streamed { events(&[answer]) } else { answer.to_string() }
}
