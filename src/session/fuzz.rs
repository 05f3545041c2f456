//! Any lines from a client.

use super::{acknowledge::Acknowledger, link::Link, mail::Mailbox, stdio::Writer, transport::ClientTransport};
use rmcp::transport::Transport;
use serde_json::{Value, value::RawValue};
use std::{collections::HashMap, io::Cursor, sync::Arc};
use tokio::{io::AsyncReadExt, runtime::Runtime};
use tokio_util::sync::CancellationToken;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
}

/// Every line of a client is read, answered or ignored, and each answer is JSON-RPC on one line.
pub fn mcp(data: &[u8]) {
    RUNTIME.with(|runtime| runtime.block_on(answered(data)));
}

async fn answered(data: &[u8]) {
    let (mut answers, out) = tokio::io::duplex(usize::MAX);
    let link = Arc::new(Link::default());
    let mail = Arc::new(Mailbox::new(link.clone(), Arc::new(Acknowledger::default())));
    let input = Box::new(Cursor::new(data.to_vec()));
    let mut transport = ClientTransport::new(input, Writer::new(out), mail, link, CancellationToken::new());
    while transport.receive().await.is_some() {}
    transport.close().await.unwrap();
    drop(transport);
    let mut lines = String::new();
    answers.read_to_string(&mut lines).await.unwrap();
    for line in lines.lines() {
        // The id is as the client wrote it, even if it is half of a character.
        let answer: HashMap<String, &RawValue> = serde_json::from_str(line).unwrap();
        assert_eq!(answer["jsonrpc"].get(), "\"2.0\"");
        let error: Value = serde_json::from_str(answer["error"].get()).unwrap();
        assert!(error["code"].is_i64(), "{line}");
    }
}
