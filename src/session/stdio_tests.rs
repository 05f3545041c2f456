use super::*;
use crate::session::acknowledge::Acknowledger;
use serde_json::json;
use tokio::io::{DuplexStream, duplex};

/// A transport with its client's ends.
fn transport() -> (Stdio, BufReader<DuplexStream>, DuplexStream, CancellationToken) {
    let ((near_in, far_out), (far_in, near_out)) = (duplex(64 * 1024), duplex(64 * 1024));
    let link = Arc::new(Link::default());
    let mail = Arc::new(Mailbox::new(link.clone(), Arc::new(Acknowledger::default())));
    let closing = CancellationToken::new();
    let stdio = Stdio::new(Box::new(near_in), Writer::new(near_out), mail, link, closing.clone());
    (stdio, BufReader::new(far_in), far_out, closing)
}

async fn answer(from: &mut BufReader<DuplexStream>) -> Value {
    let mut line = String::new();
    from.read_line(&mut line).await.expect("an answer");
    serde_json::from_str(&line).expect("JSON")
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":9,"method":"initialize","params":{"protocolVersion":"2026-07-28","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;

#[tokio::test]
async fn before_initialize_a_probe_is_refused_and_strays_are_ignored() {
    let (mut stdio, mut from, mut to, _) = transport();
    let probe = r#"{"jsonrpc":"2.0","id":"d","method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let early = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
    let stray = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    to.write_all(format!("{stray}\n{probe}\n{early}\n\r\n{INITIALIZE}\n").as_bytes()).await.expect("written");
    let opening = stdio.receive().await.expect("initialize");
    assert!(
        matches!(opening, JsonRpcMessage::Request(request) if matches!(request.request, ClientRequest::InitializeRequest(_)))
    );
    let refused = answer(&mut from).await;
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!("d"), &json!(-32601)));
    assert!(!refused.to_string().contains("2026-07-28"));
    let early = answer(&mut from).await;
    assert_eq!((&early["id"], &early["error"]["code"]), (&json!(2), &json!(-32600)));
}

#[tokio::test]
async fn lines_that_are_no_messages_are_answered_and_survived() {
    let (mut stdio, mut from, mut to, closing) = transport();
    let long = "x".repeat(MAX_LINE + 1);
    let writing = tokio::spawn(async move {
        let lines = format!("not json\n[]\n{{\"jsonrpc\":\"2.0\",\"method\":5}}\n{{\"id\":7}}\n{long}\n\u{1}\n{INITIALIZE}\n");
        to.write_all(lines.as_bytes()).await.expect("written");
    });
    assert!(stdio.receive().await.is_some());
    writing.await.expect("written");
    for (id, code) in
        [(json!(null), -32700), (json!(null), -32600), (json!(7), -32600), (json!(null), -32600), (json!(null), -32700)]
    {
        let answer = answer(&mut from).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&id, &json!(code)));
    }
    assert!(!closing.is_cancelled());
    assert!(stdio.receive().await.is_none(), "the end of stdin ends the session");
    assert!(closing.is_cancelled());
}

#[tokio::test]
async fn what_cannot_be_used_is_answered_under_its_id() {
    let (mut stdio, mut from, mut to, _) = transport();
    let deep = "[".repeat(100_000);
    let long = "x".repeat(MAX_LINE);
    let lines: Vec<(Value, i32, &str, Vec<u8>)> = vec![
        (
            json!(5),
            -32700,
            "half of a character",
            br#"{"id":5,"method":"tools/call","params":{"message":"Done \ud83d"}}"#.to_vec(),
        ),
        (json!("a"), -32700, "half of a character", br#"{"method":"tools/call","params":{"\udc00":1},"id":"a"}"#.to_vec()),
        (json!(5), -32700, "not text in UTF-8", b"{\"id\":5,\"method\":\"tools/call\",\"params\":\"\xff\"}".to_vec()),
        (json!(5), -32700, "number out of range", br#"{"id":5,"method":"tools/call","params":{"waitSeconds":1e999}}"#.to_vec()),
        (json!(5), -32700, "recursion limit", format!(r#"{{"id":5,"method":"tools/call","params":{deep}"#).into_bytes()),
        (json!(5), -32600, "a line of more than", format!(r#"{{"id":5,"method":"tools/call","params":"{long}"}}"#).into_bytes()),
        (json!(5), -32600, "a line of more than", format!(r#"{{"method":"tools/call","params":"{long}","id":5}}"#).into_bytes()),
        (json!(1.5), -32600, "as its id", br#"{"id":1.5,"method":"ping"}"#.to_vec()),
        (json!(u64::MAX), -32600, "as its id", br#"{"id":18446744073709551615,"method":"ping"}"#.to_vec()),
        (json!(5), -32600, "no batches", br#"[{"id":5,"method":"ping"},{"method":"notifications/initialized"}]"#.to_vec()),
        (json!(null), -32700, "Parse error", br#"{"id":nul,"method":"ping"}"#.to_vec()),
    ];
    let ignored = br#"{"id":5,"result":"\ud83d"}"#;
    let expected: Vec<_> = lines.iter().map(|(id, code, what, _)| (id.clone(), *code, *what)).collect();
    let writing = tokio::spawn(async move {
        to.write_all(&[ignored, &b"\n"[..]].concat()).await.expect("written");
        for (.., line) in lines {
            to.write_all(&[&line[..], b"\n"].concat()).await.expect("written");
        }
        to.write_all(format!("{INITIALIZE}\n").as_bytes()).await.expect("written");
    });
    assert!(stdio.receive().await.is_some(), "the next line that can be used is");
    writing.await.expect("written");
    for (id, code, what) in expected {
        let answer = answer(&mut from).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&id, &json!(code)), "{what}: {answer}");
        assert!(answer["error"]["message"].as_str().expect("words").contains(what), "{what}: {answer}");
    }
}

#[tokio::test]
async fn a_request_cannot_select_a_revision_and_a_half_read_line_is_kept() {
    let (mut stdio, _from, mut to, _) = transport();
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","k":1}}}"#;
    to.write_all(format!("{INITIALIZE}\n{}", &call[..40]).as_bytes()).await.expect("written");
    assert!(stdio.receive().await.is_some());
    let half = tokio::time::timeout(std::time::Duration::from_millis(20), stdio.receive()).await;
    assert!(half.is_err(), "half a line is no message");
    to.write_all(format!("{}\n", &call[40..]).as_bytes()).await.expect("written");
    let Some(JsonRpcMessage::Request(request)) = stdio.receive().await else { panic!("a request") };
    assert!(rmcp::model::GetMeta::get_meta(&request.request).protocol_version().is_none());
}
