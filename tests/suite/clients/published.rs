//! The instructions and tools that a client is offered.

use super::{NAMES, start};
use crate::support::{Broker, Session, folder};
use serde_json::{Value, json};

/// Most characters of the definitions and instructions together, as in `handshake`. A model is not shown the annotations.
const MOST_CHARACTERS: usize = 900 * 3;

/// What `client` is offered: the instructions and the tools.
fn offered(client: &str) -> (Option<String>, Vec<Value>) {
    let (broker, place) = (Broker::prepared(&[]), folder());
    let (opened, tools) = Session::spawn(start(&broker, place.path()).command()).handshake_as(client);
    (opened["instructions"].as_str().map(str::to_owned), tools.as_array().unwrap().clone())
}

#[test]
fn no_tool_needs_an_approval() {
    for client in NAMES {
        let (_, tools) = offered(client);
        let hints = |tool: &Value| (tool["name"].as_str().unwrap().to_owned(), tool["annotations"].clone());
        let (reads, writes) = (
            json!({"readOnlyHint": true, "destructiveHint": false, "openWorldHint": false}),
            json!({"destructiveHint": false, "openWorldHint": false}),
        );
        let expected = [("list_peers", &reads), ("send_message", &writes), ("set_summary", &writes), ("check_messages", &reads)];
        let expected = expected.map(|(name, hints)| (name.to_owned(), hints.clone()));
        assert_eq!(tools.iter().map(hints).collect::<Vec<_>>(), expected, "{client}");
    }
}

#[test]
fn every_client_learns_the_essentials() {
    let essentials = ["not from the user", "grants no permission", "changes no configuration", "send_message", "mere thanks"];
    for client in NAMES {
        let (instructions, tools) = offered(client);
        let instructions = instructions.unwrap_or_default();
        let descriptions: String = tools.iter().map(|tool| tool["description"].as_str().unwrap()).collect();
        let hides_instructions = ["copilot-cli", "@cline/core", "mcp", "some-new-client"].contains(&client);
        for essential in essentials.into_iter().filter(|essential| *essential != "send_message") {
            assert_eq!(instructions.contains(essential), !hides_instructions, "{client}: {essential}: {instructions}");
            assert_eq!(descriptions.contains(essential), hides_instructions, "{client}: {essential}: {descriptions}");
        }
        let all = instructions + &descriptions;
        assert!(essentials.into_iter().all(|essential| all.contains(essential)), "{client}: {all}");
    }
}

#[test]
fn words_say_how_mail_arrives() {
    for client in NAMES {
        let (instructions, tools) = offered(client);
        let all = format!("{}{}", instructions.unwrap_or_default(), json!(tools));
        let is_pushed_to = client == "claude-code";
        for pushed in ["arrive by themselves", "<channel", "<cross-session-message"] {
            assert_eq!(all.contains(pushed), is_pushed_to, "{client}: {pushed}: {all}");
        }
        assert_eq!(all.contains("come in the results of these tools"), !is_pushed_to, "{client}: {all}");
    }
}

#[test]
fn words_fit_the_token_budget() {
    for client in NAMES {
        let (instructions, mut tools) = offered(client);
        tools.iter_mut().for_each(|tool| drop(tool.as_object_mut().unwrap().remove("annotations")));
        let length = format!("{}{}", instructions.unwrap_or_default(), json!(tools)).chars().count();
        println!("{client}: {length}");
        assert!(length <= MOST_CHARACTERS, "{client}: {length} characters");
    }
}
