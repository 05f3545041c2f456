//! Requests with any body and query, to the real routes of a real broker.

use super::{access::Connection, app::App, containers::Containers, router::router};
use crate::{
    broker::{Broker, Limits},
    db::{self, Extent},
};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use serde_json::{Value, json};
use std::{cell::RefCell, time::Duration};
use tokio::{runtime::Runtime, time::timeout};
use tower_service::Service;

/// How long a request may wait for events that do not come; then its client leaves.
const PATIENCE: Duration = Duration::from_millis(5);
const LEGACY: [&str; 7] =
    ["/register", "/heartbeat", "/set-summary", "/list-peers", "/send-message", "/poll-messages", "/unregister"];

struct Target {
    runtime: Runtime,
    router: Router,
    /// Each path with its method.
    verbs: Vec<(String, String)>,
    /// What a client may show: nothing, a secret, a process, a token, nonsense.
    credentials: Vec<String>,
    _folder: tempfile::TempDir,
}

thread_local! {
    static TARGET: RefCell<Target> = RefCell::new(Target::start());
}

/// Whatever a client sends, it gets an answer, or an error with a code; the broker itself never fails.
pub fn http(data: &[u8]) {
    let [verb, credential, given @ ..] = data else { return };
    TARGET.with_borrow_mut(|target| {
        let (method, path) = target.verbs[usize::from(*verb) % target.verbs.len()].clone();
        let credential = target.credentials[usize::from(*credential) % target.credentials.len()].clone();
        let (path, body) = match (method.as_str(), given.iter().position(|byte| *byte == b'\n')) {
            ("POST", Some(end)) if path.contains("{id}") => (path.replace("{id}", &text(&given[..end])), &given[end + 1..]),
            ("POST", _) => (path.replace("{id}", "m1-abcdef"), given),
            (_, end) => {
                let (id, query) = given.split_at(end.unwrap_or_default());
                (format!("{}?{}", path.replace("{id}", &text(id)), text(query)), &[][..])
            }
        };
        let request = Request::builder().method(method.as_str()).uri(&path).header("content-type", "application/json");
        let request = match credential.as_str() {
            "" => request,
            shown => request.header("authorization", shown),
        };
        let Ok(request) = request.body(Body::from(body.to_vec())) else { return };
        target.send(request, PATIENCE);
    });
}

/// The bytes as a part of an address.
fn text(bytes: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'?' | b'"' | b'<' | b'>');
    bytes.iter().map(|byte| if is_plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") }).collect()
}

impl Target {
    fn start() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = db::open(&folder.path().join("peers.db"), Extent::Whole).unwrap().store;
        let broker = runtime
            .block_on(Broker::open(
                store,
                Limits { per_minute: None, ..Limits::from_env().unwrap() },
                folder.path().join("broker.sock"),
            ))
            .unwrap();
        let router = router(App::new(broker, Vec::new(), Containers::new("/nowhere".into()).0).into());
        let mut target = Self {
            runtime,
            router,
            verbs: Vec::new(),
            credentials: vec![String::new(), "Bearer nonsense".into()],
            _folder: folder,
        };
        let document = target.json("GET", "/v1/openapi.json", Value::Null);
        for (path, methods) in document["paths"].as_object().unwrap() {
            let methods = methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone()));
            target.verbs.extend(methods.filter(|(_, path)| path != "/v1/stop" && !path.starts_with("/v1/containers")));
        }
        target.verbs.extend(LEGACY.map(|path| ("POST".to_owned(), path.to_owned())));
        for name in ["one", "two"] {
            let pid = std::process::id();
            let session = json!({"client": {"name": "fuzz", "version": "1"}, "instance": name, "sessionId": name, "pid": pid, "cwd": "/tmp"});
            let secret = target.json("POST", "/v1/register", session)["secret"].as_str().unwrap().to_owned();
            target.credentials.push(format!("Bearer {secret}"));
        }
        target.credentials.extend([format!("Process {}", std::process::id()), "Session-Token x".into()]);
        target
    }

    fn json(&mut self, method: &str, path: &str, body: Value) -> Value {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let (status, body) = self.send(request.body(Body::from(body.to_string())).unwrap(), Duration::MAX).unwrap();
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// The answer, unless the request waits longer than `patience`.
    fn send(&mut self, mut request: Request<Body>, patience: Duration) -> Option<(StatusCode, Value)> {
        request.extensions_mut().insert(Connection::Unix { pid: Some(std::process::id()) });
        let asked = format!("{} {}", request.method(), request.uri());
        let answer = self.router.call(request);
        let (status, body) = self.runtime.block_on(async {
            let answer = timeout(patience, answer).await.ok()?.unwrap_or_else(|never| match never {});
            if answer.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream") {
                return None;
            }
            Some((answer.status(), to_bytes(answer.into_body(), usize::MAX).await.unwrap()))
        })?;
        assert!(!status.is_server_error(), "{asked}: {status} {}", String::from_utf8_lossy(&body));
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(status.is_success() || body["error"].is_object() || body["error"].is_string(), "{asked}: {status} {body}");
        Some((status, body))
    }
}
