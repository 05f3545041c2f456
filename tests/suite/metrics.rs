//! `/metrics`, read by hand and by a real Prometheus, and what `packaging/grafana` makes of it.

use crate::support::{
    Broker,
    events::Peer,
    eventually, folder,
    http::{Answer, Http},
    installed,
    other::Other,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const ON_ANY_PORT: (&str, &str) = ("CLAUDE_PEERS_METRICS", "127.0.0.1:0");

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/grafana").join(file)
}

/// The broker's port for Prometheus.
fn port(broker: &Broker) -> u16 {
    let status = broker.http().get("/v1/status").json();
    let metrics = status["listeners"].as_array().unwrap().iter().find(|listener| listener["kind"] == "metrics").unwrap();
    assert_eq!(metrics["listening"], true);
    metrics["address"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

/// Two peers of whom one is connected, three messages of which one is delivered, and a refusal.
fn traffic(broker: &Broker) -> impl Sized + use<> {
    let http = broker.http();
    let [shop, web] = ["shop", "web"].map(|name| Peer::register(&http, name, json!({"cwd": format!("/src/secret/{name}")})));
    let stream = shop.follow(&http);
    web.over(&http).post("/v1/set-summary", &json!({"summary": "secret summary", "source": "session"})).json();
    let send = |to: &str| web.over(&http).post("/v1/send", &json!({"to": to, "text": "secret text"}));
    let sent = send("shop").json();
    let taken = shop.over(&http).post("/v1/take", &json!({"lease": "l", "route": "tool_result"})).json();
    assert_eq!(taken["messages"][0]["id"], sent["messageId"]);
    let delivered =
        json!({"route": "tool_result", "messages": [{"id": sent["messageId"], "outcome": "delivered", "lease": "l"}]});
    shop.over(&http).post("/v1/acknowledge", &delivered).json();
    (0..2).for_each(|_| _ = send("shop").json());
    assert_eq!(send("shop").code(), "repeat_limited");
    assert_eq!(send("nobody").code(), "peer_not_found");
    stream
}

/// The value of a series in OpenMetrics text.
fn value(text: &str, series: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

/// The names of all series.
fn names(text: &str) -> BTreeSet<String> {
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
}

#[test]
fn broker_counts_what_happens() {
    let broker = Broker::start();
    let _connected = traffic(&broker);
    let answer = broker.http().get("/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let text = answer.body;
    for (series, expected) in [
        (r#"claude_peers_messages_total{state="queued",route="none"}"#, 3.0),
        (r#"claude_peers_messages_total{state="delivered",route="tool_result"}"#, 1.0),
        (r#"claude_peers_messages_total{state="expired",route="none"}"#, 0.0),
        (r#"claude_peers_delivery_seconds_count{route="tool_result"}"#, 1.0),
        (r#"claude_peers_refused_messages_total{reason="repeat_limited"}"#, 1.0),
        (r#"claude_peers_refused_messages_total{reason="peer_not_found"}"#, 1.0),
        (r#"claude_peers_refused_requests_total{reason="repeat_limited"}"#, 1.0),
        (r#"claude_peers_refused_requests_total{reason="internal"}"#, 0.0),
        (r#"claude_peers_peers{status="connected"}"#, 1.0),
        (r#"claude_peers_peers{status="reconnecting"}"#, 1.0),
        (r#"claude_peers_peers{status="gone"}"#, 0.0),
        ("claude_peers_waiting_messages", 2.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    assert!(value(&text, "claude_peers_commit_seconds_count") >= 5.0, "{text}");
    assert!(value(&text, "claude_peers_database_bytes") >= 4096.0, "{text}");
    assert!(text.ends_with("# EOF\n"));
    assert!(["shop", "web", "secret", "/src"].iter().all(|word| !text.contains(word)), "{text}");
}

#[test]
fn more_peers_make_no_more_series() {
    let broker = Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    let _connected = traffic_without_limits(&broker, 1);
    let lines = |broker: &Broker| broker.http().get("/metrics").body.lines().count();
    let before = lines(&broker);
    let _more = traffic_without_limits(&broker, 20);
    assert_eq!(lines(&broker), before);
}

/// So many peers, and a message to each.
fn traffic_without_limits(broker: &Broker, peers: usize) -> impl Sized + use<> {
    let http = broker.http();
    let streams: Vec<_> = (0..peers)
        .map(|number| {
            let peer = Peer::register(&http, &format!("peer-{peers}-{number}"), json!({}));
            http.post("/v1/send", &json!({"to": peer.id, "text": "hello"})).json();
            peer.follow(&http)
        })
        .collect();
    streams
}

#[test]
fn port_serves_metrics_and_nothing_else() {
    let broker = Broker::with(&[ON_ANY_PORT]);
    let port = port(&broker);
    let http = Http::tcp(port);
    let text = http.get("/metrics");
    assert_eq!(text.status, 200);
    assert!(text.body.contains("claude_peers_messages_total"), "{}", text.body);
    for path in ["/", "/health", "/v1/hello", "/v1/history", "/v1/peers?scope=machine", "/v1/openapi.json", "/metrics/"] {
        assert_eq!(http.get(path).status, 404, "{path}");
    }
    for path in ["/metrics", "/v1/send", "/v1/stop", "/send-message"] {
        assert!([404, 405].contains(&http.post(path, &json!({})).status), "{path}");
    }
    let refused = |headers: &[(&str, &str)]| http.request("GET", "/metrics", headers, "");
    for answer in [
        refused(&[("Origin", "http://evil.example")]),
        refused(&[("Sec-Fetch-Site", "cross-site")]),
        refused(&[("Host", "evil.example")]),
        refused(&[("Host", "127.0.0.1:1")]),
    ] {
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"));
    }
    let forbidden = r#"claude_peers_refused_requests_total{reason="forbidden"}"#;
    assert_eq!(value(&http.get("/metrics").body, forbidden), 4.0);
    if let Some(mut stranger) = Other::user() {
        let says = |stranger: &mut Other, port: u16| -> Answer {
            stranger.says(&port.to_string(), &Http::tcp(port).written("GET", "/metrics", &[], "")).unwrap()
        };
        assert_eq!(says(&mut stranger, port).status, 200, "Prometheus is a user of its own");
        assert_eq!(says(&mut stranger, broker.port).status, 403, "the other port stays closed to others");
    }
}

#[test]
fn port_is_closed_unless_asked_for() {
    let broker = Broker::start();
    let status = broker.http().get("/v1/status").json();
    let kinds: Vec<_> = status["listeners"].as_array().unwrap().iter().map(|listener| listener["kind"].clone()).collect();
    assert_eq!(kinds, ["unix", "tcp"]);
}

#[test]
fn only_loopback_addresses_are_taken() {
    for address in
        ["0.0.0.0:9100", "192.168.1.2:9100", "[::]:9100", "localhost:9100", "9100", "127.0.0.1", "127.0.0.1:70000", "on"]
    {
        let broker = Broker::prepared(&[("CLAUDE_PEERS_METRICS", address)]);
        assert_eq!(broker.refused(), 2, "{address}");
        let log = broker.log();
        assert!(log.contains("CLAUDE_PEERS_METRICS") && log.contains(address) && log.contains("127.0.0.1:PORT"), "{log}");
    }
    let broker = Broker::with(&[("CLAUDE_PEERS_METRICS", "[::1]:0")]);
    assert!(port(&broker) > 0);
}

#[test]
fn taken_port_stops_nothing_else() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let broker = Broker::with(&[("CLAUDE_PEERS_METRICS", &address)]);
    let status = broker.http().get("/v1/status").json();
    let notice = status["notices"][0].as_str().unwrap();
    for words in [&address, "is held by process", "set CLAUDE_PEERS_METRICS for another port"] {
        assert!(notice.contains(words), "{notice}");
    }
    assert_eq!(broker.tcp().get("/health").status, 200);
    assert_eq!(broker.http().get("/metrics").status, 200);
    drop(holder);
}

/// A Prometheus that scrapes one broker each second.
struct Prometheus {
    child: Child,
    http: Http,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn scraping(port: u16) -> Self {
        let folder = folder();
        let (config, log) = (folder.path().join("prometheus.yml"), folder.path().join("log"));
        let rules = packaging("alerts.yml");
        let text = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{"job_name": "claude-peers", "static_configs": [{"targets": [format!("127.0.0.1:{port}")]}]}],
        });
        fs::write(&config, text.to_string()).unwrap(); // JSON is YAML
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0");
        let child = command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).stdin(Stdio::null()).spawn().unwrap();
        // It chooses a port and says which.
        let port = eventually("Prometheus listens", || {
            let log = fs::read_to_string(&log).unwrap();
            let address = log.split_once("msg=\"Listening on\" address=127.0.0.1:")?.1;
            address.split_whitespace().next()?.parse().ok()
        });
        let http = Http::tcp(port);
        eventually("Prometheus is ready", || Some(()).filter(|()| http.get("/-/ready").status == 200));
        Self { child, http, _folder: folder }
    }

    /// The answer to a query.
    fn query(&self, expression: &str) -> Vec<Value> {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.http.get(&format!("/api/v1/query?query={escaped}")).json();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// Waits until a query has this one value.
    #[track_caller]
    fn shows(&self, expression: &str, expected: &str) {
        eventually(&format!("{expression} is {expected}"), || {
            matches!(self.query(expression).as_slice(), [one] if one["value"][1] == expected).then_some(())
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn prometheus_scrapes_the_broker() {
    if !installed("prometheus") {
        return;
    }
    let broker = Broker::with(&[ON_ANY_PORT]);
    let prometheus = Prometheus::scraping(port(&broker));
    prometheus.shows("up", "1");
    let _connected = traffic(&broker);
    prometheus.shows(r#"claude_peers_messages_total{state="queued",route="none"}"#, "3");
    prometheus.shows(r#"claude_peers_messages_total{state="delivered",route="tool_result"}"#, "1");
    prometheus.shows(r#"claude_peers_refused_messages_total{reason="repeat_limited"}"#, "1");
    prometheus.shows(r#"claude_peers_peers{status="connected"}"#, "1");
    prometheus.shows("claude_peers_waiting_messages", "2");
    prometheus.shows(r#"claude_peers_delivery_seconds_count{route="tool_result"}"#, "1");
    prometheus.shows("claude_peers_database_bytes > bool 4095", "1");
    for (panel, expression) in dashboard() {
        eventually(&format!("{panel}: {expression} finds something"), || {
            (!prometheus.query(&expression).is_empty()).then_some(())
        });
    }
    // A rule's own series shows that Prometheus has loaded the rules and that one of them sees the broker.
    broker.http().request("GET", "/metrics", &[("Origin", "http://evil.example")], "");
    prometheus.shows(r#"count(ALERTS{alertname="ClaudePeersStrangerRefused"})"#, "1");
}

/// The dashboard's panels with their queries, as Grafana would send them.
fn dashboard() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(packaging("dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries = panels.flat_map(|panel| {
        let title = panel["title"].as_str().unwrap();
        panel["targets"].as_array().unwrap().iter().map(move |target| (title, target["expr"].as_str().unwrap()))
    });
    let filled = |expression: &str| expression.replace("$instance", ".*").replace("$__rate_interval", "1h");
    queries.map(|(title, expression)| (title.to_owned(), filled(expression))).collect()
}

#[test]
fn dashboard_and_alerts_name_served_metrics() {
    let broker = Broker::start();
    let _connected = traffic(&broker);
    let served = names(&broker.http().get("/metrics").body);
    for file in ["dashboard.json", "alerts.yml"] {
        let text = fs::read_to_string(packaging(file)).unwrap();
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let named: BTreeSet<String> = words.filter(|word| word.starts_with("claude_peers_")).map(str::to_owned).collect();
        assert!(named.len() > 4, "{file}: {named:?}");
        let unknown: Vec<_> = named.difference(&served).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, which the broker does not serve");
    }
}

#[test]
fn alert_rules_pass_promtool() {
    if !installed("promtool") {
        return;
    }
    let output = Command::new("promtool").args(["check", "rules"]).arg(packaging("alerts.yml")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
