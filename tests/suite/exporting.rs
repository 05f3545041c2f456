//! `export`: all messages as JSON lines, and as a web page.

use crate::support::{Broker, events::Peer, http::Http};
use serde_json::{Value, json};

fn broker_with_peers() -> (Broker, [Http; 2]) {
    let broker = Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0"), ("CLAUDE_PEERS_WAITING_LIMIT", "100000")]);
    let http = broker.http();
    let peers = ["shop", "web"].map(|name| Peer::register(&http, name, json!({"cwd": format!("/src/{name}")})).over(&http));
    (broker, peers)
}

fn send(http: &Http, to: &str, text: &str, reply_to: Option<&Value>) -> Value {
    http.post("/v1/send", &json!({"to": to, "text": text, "replyTo": reply_to})).json()["messageId"].clone()
}

fn export(broker: &Broker, arguments: &[&str]) -> String {
    let output = broker.cli(&[&["export"], arguments].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_message_is_a_line_of_json() {
    let (broker, [shop, web]) = broker_with_peers();
    // More than one page, which has 500.
    (0..1_001).for_each(|number| _ = send(&web, "shop", &format!("number {number}\n\u{1b}[31m"), None));
    send(&shop, "web", "the last", None);
    let lines: Vec<Value> = export(&broker, &[]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1_002);
    for (number, line) in lines[..1_001].iter().enumerate() {
        assert_eq!(line["text"], format!("number {number}\n\u{1b}[31m"));
    }
    let of_cli = export(&broker, &["--peer", "cli"]);
    assert_eq!(of_cli, "");
    assert_eq!(export(&broker, &["--since", "1h"]).lines().count(), 1_002);
    assert_eq!(export(&broker, &["--before", "1999-01-01T00:00:00Z"]), "");
    assert_eq!(export(&broker, &["--since", "2999-01-01T00:00:00Z"]), "");
}

#[test]
fn text_is_data_in_the_web_page() {
    let (broker, [shop, web]) = broker_with_peers();
    let evil = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;\u{1b}[2J";
    let question = send(&web, "shop", evil, None);
    send(&web, "shop", "another conversation", None);
    let answer = send(&shop, "web", "8080", Some(&question));
    send(&web, "shop", "thanks", Some(&answer));
    let page = export(&broker, &["--html"]);
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains('\u{1b}'), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("&amp;amp;"), "{page}");
    assert!(page.contains("default-src 'none'"));
    let sections: Vec<&str> = page.split("<section>").skip(1).collect();
    let counts: Vec<usize> = sections.iter().map(|section| section.matches("<article").count()).collect();
    assert_eq!(counts, [3, 1], "{page}");
    assert!(sections[0].find("8080") < sections[0].find("thanks"));
    let empty = export(&broker, &["--html", "--peer", "cli"]);
    assert!(empty.contains("0 messages") && empty.ends_with("</html>"), "{empty}");
}
