//! `docs/protocol.md` is true: a broker answers each of its examples as it says, and its tables are those of the OpenAPI document.

use crate::support::{
    Broker,
    events::{Events, Peer},
    http::Http,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const PAGE: &str = include_str!("../../docs/protocol.md");
/// What a broker makes: an example has one value for it, a test another, each the same throughout.
const MADE: [&str; 8] = ["id", "messageId", "newest", "from", "to", "secret", "replyTo", "next"];
/// What depends on the time, the machine or the wording.
const VARYING: [&str; 19] = [
    "address",
    "brokerVersion",
    "bytes",
    "deliveredAt",
    "deliveryReason",
    "expiresAt",
    "folder",
    "lastSeen",
    "messages",
    "path",
    "pid",
    "registeredAt",
    "sentAt",
    "startedAt",
    "version",
    "waiting",
    "warning",
    "message",
    "help",
];

/// A request with its answer.
#[derive(Debug)]
struct Example {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    answer: String,
}

/// The blocks of code on the page: what each begins with, and its text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut parts = PAGE.split("\n```");
    parts.next();
    let inside = parts.step_by(2);
    inside.map(|block| block.split_once('\n').unwrap()).collect()
}

fn examples() -> Vec<Example> {
    let blocks = blocks();
    let pairs = blocks.windows(2).filter(|pair| pair[0].0 == "http");
    pairs.map(|pair| example(pair[0].1, pair[1].1)).collect()
}

fn example(request: &str, answer: &str) -> Example {
    let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
    let mut lines = head.lines();
    let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    let [method, path, body, answer] = [method, path, body, answer].map(str::to_owned);
    Example { method, path, headers: lines.map(header).collect(), body, answer }
}

/// The page's values with those that stand for them here.
#[derive(Debug, Default)]
struct Dictionary(BTreeMap<String, String>);

impl Dictionary {
    fn translate(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (written, real)| text.replace(written, real))
    }

    /// Whether `real` is what the page says under `field`; learns the values that the broker makes.
    fn compare(&mut self, field: &str, written: &Value, real: &Value) {
        match (written, real) {
            (Value::Object(fields), Value::Object(others)) => {
                assert_eq!(fields.keys().collect::<BTreeSet<_>>(), others.keys().collect(), "the fields of {field:?}: {real}");
                fields.iter().for_each(|(name, value)| self.compare(name, value, &others[name]));
            }
            (Value::Array(values), Value::Array(others)) => {
                assert_eq!(values.len(), others.len(), "{field}: {real}");
                values.iter().zip(others).for_each(|(value, other)| self.compare(field, value, other));
            }
            (Value::String(text), Value::String(other)) if MADE.contains(&field) => {
                assert_eq!(self.0.entry(text.clone()).or_insert_with(|| other.clone()), other, "{field}");
            }
            (Value::String(_), Value::String(_)) | (Value::Number(_), Value::Number(_)) if VARYING.contains(&field) => {}
            _ => assert_eq!(written, real, "{field}"),
        }
    }
}

#[test]
fn broker_answers_every_example_as_documented() {
    let broker = Broker::start();
    let http = broker.http();
    let mut known = Dictionary::default();
    for pid in ["4711", "4700"] {
        known.0.insert(pid.to_owned(), std::process::id().to_string());
    }
    let (mut stream, mut events) = (None, Vec::new());
    for example in examples() {
        eprintln!("{} {}", example.method, example.path);
        prepare(&example, &http, &mut known);
        let headers: Vec<_> = example.headers.iter().map(|(name, value)| (name.clone(), known.translate(value))).collect();
        let mut headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if example.path == "/v1/events" {
            let secret = headers[0].1.strip_prefix("Bearer ").unwrap();
            stream = Some(Events::open(&http.as_peer(secret)));
            events = documented_events(&example.answer);
            assert_eq!(events.remove(0), ("ready".to_owned(), Value::Null));
            continue;
        }
        if example.path == "/v1/watch" {
            let mut watched = Events::watch(&http);
            for (name, data) in documented_events(&example.answer) {
                let real = std::iter::from_fn(|| watched.next()).find(|event| event.0 == name).unwrap();
                known.compare("", &data, &real.1);
            }
            continue;
        }
        headers.extend((!example.body.is_empty()).then_some(("Content-Type", "application/json")));
        let answer = http.request(&example.method, &known.translate(&example.path), &headers, &known.translate(&example.body));
        let real = serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body));
        known.compare("", &serde_json::from_str(&example.answer).unwrap(), &real);
        if example.path == "/v1/send"
            && let (Some(stream), Some((name, data))) = (&mut stream, events.pop())
        {
            let event = stream.next().unwrap();
            assert_eq!(event.0, name);
            known.compare("", &data, &event.1);
        }
    }
}

fn documented_events(text: &str) -> Vec<(String, Value)> {
    let events = text.split("\n\n").map(|event| event.trim_end().split_once('\n').unwrap());
    let parse = |(name, data): (&str, &str)| {
        let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        (name.strip_prefix("event: ").unwrap().to_owned(), data)
    };
    events.map(parse).collect()
}

/// Does what an example takes for granted.
fn prepare(example: &Example, http: &Http, known: &mut Dictionary) {
    let as_peer = |secret: &str| http.as_peer(&known.translate(secret));
    let sent = if example.path.ends_with("/read") {
        let question = http.post("/v1/send", &json!({"to": "shop-api", "text": "Are the tests green?"})).json();
        let answer = json!({"to": "cli", "text": "Yes.", "replyTo": question["messageId"]});
        as_peer("m7e8esfbq2xk").post("/v1/send", &answer).json()
    } else if example.path.ends_with("/release") {
        Peer::register(http, "vault", json!({"cwd": "/home/ada/src/vault", "inbound": "hold"}));
        let sent = as_peer("w9c3uhtn5rzp").post("/v1/send", &json!({"to": "vault", "text": "Rotate the keys"})).json();
        assert_eq!(sent["state"], "held");
        sent
    } else {
        return;
    };
    let written = example.path.split('/').nth(3).unwrap();
    known.0.insert(written.to_owned(), sent["messageId"].as_str().unwrap().to_owned());
}

/// The path as it is routed.
fn template(path: &str) -> String {
    let path = path.split('?').next().unwrap();
    path.split('/')
        .map(|part| match part {
            "shop-dev" => "{name}",
            part if part.starts_with("m4") || part == "ssjq4f" => "{id}",
            part => part,
        })
        .collect::<Vec<_>>()
        .join("/")
}

#[test]
fn every_path_has_an_example_and_codes() {
    let broker = Broker::start();
    let document = broker.http().get("/v1/openapi.json").json();
    let mut paths = BTreeSet::new();
    let (mut codes, mut statuses) = (BTreeMap::new(), BTreeMap::<&str, BTreeSet<&str>>::new());
    for (path, operations) in document["paths"].as_object().unwrap() {
        let (method, operation) = operations.as_object().unwrap().iter().next().unwrap();
        paths.insert((method.to_uppercase(), path.clone()));
        let refusals = operation["responses"].as_object().unwrap().iter().filter(|(status, _)| *status != "200");
        for (status, refusal) in refusals {
            let named = refusal["description"].as_str().unwrap().split(", ");
            statuses.entry(status).or_default().extend(named.clone());
            codes.entry(path.as_str()).or_insert_with(BTreeSet::new).extend(named);
        }
    }
    assert_eq!(
        examples().iter().map(|example| (example.method.clone(), template(&example.path))).collect::<BTreeSet<_>>(),
        paths
    );

    let rows = |first: &str| {
        let (_, table) = PAGE.split_once(&format!("| {first} | codes |\n|---|---|\n")).unwrap();
        table.lines().map_while(|line| line.strip_prefix("| ")?.split_once(" | ")).collect::<Vec<_>>()
    };
    let words = |cell: &'static str| -> BTreeSet<&str> { cell.split('`').skip(1).step_by(2).collect() };
    let everywhere = words(rows("path").into_iter().find(|(path, _)| *path == "every path").unwrap().1);
    let documented: BTreeMap<&str, BTreeSet<&str>> = rows("path")
        .into_iter()
        .filter(|(path, _)| *path != "every path")
        .map(|(path, cell)| (path.trim_matches('`'), words(cell).into_iter().chain(everywhere.clone()).collect()))
        .collect();
    for (path, codes) in &codes {
        let own: Vec<String> = codes.difference(&everywhere).map(|code| format!("`{code}`")).collect();
        assert_eq!(documented.get(path), Some(codes), "its row is:\n| `{path}` | {} |", own.join(", "));
    }
    assert_eq!(documented.len(), codes.len());
    for (status, cell) in rows("status") {
        let named = statuses.remove(status).unwrap_or_default();
        assert!(named.is_subset(&words(cell)), "{status} is answered with {named:?}");
    }
    assert_eq!(statuses, BTreeMap::new(), "statuses without a row");
}
