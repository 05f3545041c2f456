//! The OpenAPI document matches the served API, and incompatible versions are reported.

use crate::support::{
    Broker, Session,
    events::{Events, Peer},
    folder,
    http::Http,
    mcp::Start,
};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    thread,
};

// The document.

/// Every route of the API.
const ROUTES: [(&str, &str); 30] = [
    ("post", "/v1/gateway/announce"),
    ("post", "/v1/gateway/take"),
    ("post", "/v1/gateway/acknowledge"),
    ("post", "/v1/gateway/receive"),
    ("post", "/v1/gateway/confirm"),
    ("get", "/v1/containers"),
    ("post", "/v1/containers/{name}/open"),
    ("post", "/v1/containers/{name}/close"),
    ("get", "/v1/hello"),
    ("post", "/v1/register"),
    ("post", "/v1/unregister"),
    ("get", "/v1/events"),
    ("get", "/v1/watch"),
    ("get", "/v1/peers"),
    ("get", "/v1/peers/{id}/mail"),
    ("get", "/v1/whoami"),
    ("post", "/v1/send"),
    ("post", "/v1/set-summary"),
    ("post", "/v1/take"),
    ("post", "/v1/acknowledge"),
    ("post", "/v1/hook"),
    ("get", "/v1/messages/{id}"),
    ("get", "/v1/messages/{id}/reply"),
    ("post", "/v1/messages/{id}/read"),
    ("post", "/v1/messages/{id}/release"),
    ("get", "/v1/gateway/peers"),
    ("get", "/v1/history"),
    ("get", "/v1/search"),
    ("get", "/v1/status"),
    ("post", "/v1/stop"),
];

#[test]
fn document_lists_every_path_and_has_no_gaps() {
    let broker = Broker::start();
    let document = broker.http().get("/v1/openapi.json").json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert_eq!(
        (&document["info"]["title"], &document["info"]["version"]),
        (&json!("claude-peers"), &json!(env!("CARGO_PKG_VERSION")))
    );

    let paths = document["paths"].as_object().unwrap();
    let listed =
        paths.iter().flat_map(|(path, verbs)| verbs.as_object().unwrap().keys().map(move |verb| (verb.as_str(), path.as_str())));
    assert_eq!(listed.collect::<BTreeSet<_>>(), ROUTES.into_iter().collect::<BTreeSet<_>>());
    let peer = Peer::register(&broker.http(), "peer", json!({}));
    for (verb, path) in ROUTES {
        // A peer may neither stop the broker nor watch it. The stream, mail and unregistering need a secret.
        let http = if ["/v1/stop", "/v1/watch"].contains(&path) { peer.over(&broker.http()) } else { broker.http() };
        let answer = http.request(
            &verb.to_uppercase(),
            &path.replace("{id}", "m1-abcdef").replace("{name}", "shop"),
            &[("Content-Type", "application/json")],
            "{}",
        );
        assert!(answer.status != 405 && !answer.body.contains("\"not_found\""), "{verb} {path} is listed and not served");

        let operation = &document["paths"][path][verb];
        assert!(
            operation["operationId"].is_string() && operation["summary"].is_string() || operation["description"].is_string(),
            "{path}"
        );
        assert!(!operation["responses"]["200"]["content"].as_object().unwrap().is_empty(), "{verb} {path}");
        assert_eq!(
            operation["requestBody"].is_object(),
            verb == "post"
                && !["/v1/unregister", "/v1/stop", "/v1/messages/{id}/read", "/v1/messages/{id}/release"].contains(&path)
                && !path.starts_with("/v1/containers/"),
            "{path}"
        );
        for scheme in operation["security"].as_array().into_iter().flatten().flat_map(|scheme| scheme.as_object().unwrap().keys())
        {
            assert!(document["components"]["securitySchemes"][scheme].is_object(), "{path}: {scheme}");
        }
        let named = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|parameter| parameter["in"] == "path" && parameter["name"] == "id");
        assert_eq!(named, path.contains("{id}"), "{path}");
    }
    let mut references = Vec::new();
    find_references(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference} leads nowhere");
    }
}

fn find_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| find_references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| find_references(value, found)),
        _ => {}
    }
}

#[test]
fn answers_match_the_document() {
    let broker = Broker::start();
    let http = broker.http();
    let document = http.get("/v1/openapi.json").json();
    let fits = |verb: &str, path: &str, answer: &Value| {
        let schema = &document["paths"][path][verb]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{verb} {path} has no schema");
        Schema(&document).fits(schema, answer).unwrap_or_else(|why| panic!("{verb} {path}: {why}: {answer}"));
    };
    let body_fits = |path: &str, body: &Value| {
        let schema = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        Schema(&document).fits(schema, body).unwrap_or_else(|why| panic!("{path}: {why}: {body}"));
    };
    let get = |http: &Http, path: &str, url: &str| {
        let answer = http.get(url).json();
        fits("get", path, &answer);
        answer
    };
    let post = |http: &Http, path: &str, body: Value| {
        body_fits(path, &body);
        let answer = http.post(path, &body).json();
        fits("post", path, &answer);
        answer
    };
    let facts = json!({
        "client": {"name": "test", "version": "1"}, "instance": "one", "sessionId": "s", "pid": std::process::id(), "cwd": "/tmp",
        "host": {"pid": 1, "started": 2}, "git": {"commonDir": "/tmp/.git", "head": "/tmp/.git/HEAD", "repo": "tmp", "branch": "main"},
        "tty": "/dev/pts/1", "channel": true, "delivery": "auto",
    });
    let secret = post(&http, "/v1/register", facts)["secret"].as_str().unwrap().to_owned();
    let (one, two) = (http.as_peer(&secret), Peer::register(&http, "two", json!({"cwd": "/two"})));
    let as_two = two.over(&http);
    get(&http, "/v1/hello", "/v1/hello");
    get(&one, "/v1/peers", "/v1/peers?scope=machine");
    get(&http, "/v1/peers", "/v1/peers?scope=machine");
    get(&one, "/v1/whoami", "/v1/whoami");
    get(&http, "/v1/status", "/v1/status");
    post(&one, "/v1/set-summary", json!({"summary": "x", "source": "session"}));
    let sent = post(&one, "/v1/send", json!({"to": two.id, "text": "x", "key": "k"}));
    let reply = json!({"to": two.id, "text": "y", "replyTo": sent["messageId"]});
    post(&one, "/v1/send", reply);
    let take = json!({"lease": "l", "route": "check_messages", "maxBytes": 1, "waitSeconds": 0});
    let taken = post(&as_two, "/v1/take", take);
    post(
        &as_two,
        "/v1/acknowledge",
        json!({"route": "check_messages", "messages": [{"id": taken["messages"][0]["id"], "outcome": "delivered"}]}),
    );
    get(&http, "/v1/messages/{id}", &format!("/v1/messages/{}", sent["messageId"].as_str().unwrap()));
    get(&http, "/v1/history", "/v1/history?limit=1");
    get(&http, "/v1/search", "/v1/search?words=hello");
    get(&as_two, "/v1/history", "/v1/history");

    let refused = http.post("/v1/send", &json!({"to": "nobody", "text": "x"}));
    let schema = &document["paths"]["/v1/send"]["post"]["responses"]["404"]["content"]["application/json"]["schema"];
    Schema(&document).fits(schema, &serde_json::from_str(&refused.body).unwrap()).unwrap();
    assert!(
        Schema(&document).fits(schema, &json!({"error": {"code": "unheard_of", "message": "x"}})).is_err(),
        "codes are listed"
    );

    let event = &document["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]["schema"];
    let mut events = two.follow(&http);
    let (name, data) = events.next().unwrap();
    Schema(&document).fits(event, &json!({"event": name, "data": data})).unwrap();
    let event = &document["paths"]["/v1/watch"]["get"]["responses"]["200"]["content"]["text/event-stream"]["schema"];
    let mut watched = Events::watch(&http);
    for expected in ["peer", "peer", "ready"] {
        let (name, data) = watched.next().unwrap();
        assert_eq!(name, expected);
        Schema(&document).fits(event, &json!({"event": name, "data": data})).unwrap();
    }

    as_two.post("/v1/unregister", &json!({}));
    fits("post", "/v1/stop", &http.post("/v1/stop", &json!({})).json());
}

/// A validator for the parts of JSON Schema that the document uses.
struct Schema<'a>(&'a Value);

impl Schema<'_> {
    fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.fits(self.0.pointer(&reference[1..]).unwrap(), value).map_err(|why| format!("{reference}: {why}"));
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.fits(part, value)?;
        }
        if let Some(choices) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
            let whys: Vec<_> = choices.iter().filter_map(|choice| self.fits(choice, value).err()).collect();
            if whys.len() == choices.len() {
                return Err(format!("fits none: {whys:?}"));
            }
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            return Err(format!("{value} is none of {allowed:?}"));
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => return Ok(()),
        };
        let is = |kind: &str| match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("unknown type {other}"),
        };
        if !kinds.iter().any(|kind| is(kind)) {
            return Err(format!("{value} is no {kinds:?}"));
        }
        for item in value.as_array().into_iter().flatten() {
            self.fits(&schema["items"], item)?;
        }
        let none = Map::new();
        let Some(fields) = value.as_object() else { return Ok(()) };
        let properties = schema["properties"].as_object().unwrap_or(&none);
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            fields.get(required).ok_or_else(|| format!("{required} is missing"))?;
        }
        // Each part of an `allOf` knows only its own fields; a field that no part knows is undocumented.
        for (name, field) in fields {
            if let Some(property) = properties.get(name) {
                self.fits(property, field).map_err(|why| format!("{name}: {why}"))?;
            }
        }
        Ok(())
    }
}

#[test]
fn answers_have_only_documented_fields() {
    let broker = Broker::start();
    let http = broker.http();
    let document = http.get("/v1/openapi.json").json();
    let known = |schema: &str, value: &Value| {
        let mut names = BTreeSet::new();
        property_names(&document, &document["components"]["schemas"][schema], &mut names);
        for name in value.as_object().unwrap().keys() {
            assert!(names.contains(name), "{schema}.{name} is not documented");
        }
    };
    let (one, two) = (Peer::register(&http, "one", json!({"cwd": "/one"})), Peer::register(&http, "two", json!({"cwd": "/two"})));
    let sent = one.over(&http).post("/v1/send", &json!({"to": "two", "text": "x"})).json();
    known("Receipt", &sent);
    known("HistoryEntry", &http.get(&format!("/v1/messages/{}", sent["messageId"].as_str().unwrap())).json());
    known("Peer", &one.over(&http).get("/v1/whoami").json());
    known("BrokerStatus", &http.get("/v1/status").json());
    let taken = two.over(&http).post("/v1/take", &json!({"lease": "l", "route": "check_messages"})).json();
    known("Taken", &taken);
    known("Inbound", &taken["messages"][0]);
    known("Sender", &taken["messages"][0]["from"]);
}

fn property_names(document: &Value, schema: &Value, names: &mut BTreeSet<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        property_names(document, document.pointer(&reference[1..]).unwrap(), names);
    }
    names.extend(schema["properties"].as_object().into_iter().flat_map(Map::keys).cloned());
    schema["allOf"].as_array().into_iter().flatten().for_each(|part| property_names(document, part, names));
}

// Versions.

#[test]
fn every_path_refuses_other_protocol_versions() {
    let broker = Broker::start();
    let before = broker.stored();
    for http in [broker.http(), broker.tcp()] {
        for version in ["99", "0", "-1", "one", ""] {
            for (method, path, body) in
                [("GET", "/v1/hello", ""), ("POST", "/v1/send", "{}"), ("GET", "/health", ""), ("GET", "/nowhere", "")]
            {
                let answer = http.request(method, path, &[("claude-peers-api", version)], body);
                assert_eq!((answer.status, answer.code().as_str()), (426, "version_mismatch"), "{version}: {path}");
                let words = format!("this broker ({}) speaks protocol 1 to 1, not {version:?}", env!("CARGO_PKG_VERSION"));
                assert!(answer.body.contains(&words.replace('"', "\\\"")), "{}", answer.body);
            }
        }
        assert_eq!(http.request("GET", "/v1/hello", &[("claude-peers-api", "1")], "").status, 200);
        for path in ["/v1/hello", "/v1/nowhere", "/health", "/nowhere"] {
            assert_eq!(http.get(path).header("claude-peers-api"), Some("1"), "{path}: every answer names its version");
        }
    }
    assert_eq!(broker.stored(), before);
}

/// A server in the broker's place that answers every request like this.
fn stand_in(socket: &Path, answer: impl Fn(&str) -> String + Send + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut byte = [0];
            while stream.read(&mut byte).is_ok_and(|length| length > 0) {
                request.push(byte[0]);
                if request.ends_with(b"\r\n\r\n") {
                    let head = String::from_utf8(std::mem::take(&mut request)).unwrap();
                    drop(stream.write_all(answer(head.split(' ').nth(1).unwrap()).as_bytes()));
                }
            }
        }
    });
}

fn http_answer(status: &str, headers: &str, body: &Value) -> String {
    let body = body.to_string();
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// A broker with these protocol versions and no sessions.
fn broker_of(api_min: u32, api: u32) -> impl Fn(&str) -> String {
    move |path| {
        let version = format!("claude-peers-api: {api}\r\n");
        if path == "/v1/hello" {
            let hello =
                json!({"server": "claude-peersd", "version": "7.0.0", "api": api, "apiMin": api_min, "pid": 1, "later": {}});
            http_answer("200 OK", &version, &hello)
        } else {
            http_answer("404 Not Found", &version, &json!({"error": {"code": "peer_not_found", "message": "nobody", "later": 1}}))
        }
    }
}

#[test]
fn other_versions_work_or_report_the_mismatch() {
    type Answers = Box<dyn Fn(&str) -> String + Send>;
    let cases: Vec<(&str, Answers, i32, &[&str])> = vec![
        ("a newer broker", Box::new(broker_of(9, 9)), 6, &["the broker (7.0.0, protocol 9 to 9)", "upgrade this program"]),
        (
            "an older broker",
            Box::new(broker_of(0, 0)),
            6,
            &["the broker (7.0.0, protocol 0 to 0)", "restart the broker after the upgrade"],
        ),
        ("a newer broker that knows our version, too", Box::new(broker_of(1, 9)), 4, &["nobody"]),
        ("another program", Box::new(|_| http_answer("200 OK", "", &json!({"hello": "world"}))), 6, &["is not claude-peersd"]),
        ("a program that speaks no HTTP", Box::new(|_| "220 mail.example ESMTP\r\n".to_owned()), 3, &["cannot be reached"]),
    ];
    for (what, answer, exit, words) in cases {
        let broker = Broker::prepared(&[]);
        std::fs::create_dir(broker.socket().parent().unwrap()).unwrap();
        stand_in(&broker.socket(), answer);
        let output = broker.cli(&["whoami"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit), "{what}: {said}");
        for words in words {
            assert!(said.contains(words), "{what}: {said}");
        }
        let (code, json) = broker.cli_json(&["whoami"]);
        assert_eq!((code, json["error"]["message"].is_string()), (exit, true), "{what}: {json}");
        if exit == 6 {
            assert_eq!(json["error"]["code"], "version_mismatch");
            let place = folder();
            let mut session: Session =
                Start { broker: &broker, directory: place.path(), session_id: "s", delivery: "", env: Vec::new() }.go();
            let error = session.tool_error("list_peers", json!({"scope": "machine"}));
            assert!(error.contains(words[0]), "{what}: {error}");
        }
    }
}
