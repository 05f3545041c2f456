//! The text of a message as context of a turn.

use serde_json::{Map, Value, json};

/// Most bytes of one piece of context. Codex 0.169 cuts the middle out of a longer one.
const LONGEST_PIECE: usize = 3_800;
/// What the model sees as the name of the tool whose output it reads.
const TOOL: &str = "claude_peers_message";

/// The text as context of a turn, in pieces that Codex passes on whole. Codex keeps the order of the keys, and drops a key with a value
/// that it already knows, so the keys begin with the message's name.
pub(super) fn context(name: &str, text: &str) -> Value {
    let piece = |(number, value): (usize, &str)| {
        (format!("{name}-{number:04}"), json!({"kind": "untrusted", "name": TOOL, "value": value}))
    };
    pieces(text).into_iter().enumerate().map(piece).collect::<Map<_, _>>().into()
}

/// The text in pieces of at most [`LONGEST_PIECE`] bytes, cut at the ends of lines where possible.
fn pieces(mut text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    while text.len() > LONGEST_PIECE {
        let end = text.floor_char_boundary(LONGEST_PIECE);
        let end = text[..end].rfind('\n').map_or(end, |line| line + 1);
        let (piece, rest) = text.split_at(end);
        pieces.push(piece);
        text = rest;
    }
    pieces.push(text);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_with_lines_and_are_short() {
        let text = format!("{}\n{}", "ä".repeat(LONGEST_PIECE / 2 - 1), "ö".repeat(LONGEST_PIECE));
        let pieces = pieces(&text);
        assert!(pieces.iter().all(|piece| piece.len() <= LONGEST_PIECE) && pieces[0].ends_with('\n'));
        assert_eq!(pieces.concat(), text);
    }
}
