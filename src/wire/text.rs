//! Text from peers is data wherever it is shown: made harmless for terminals and logs, fenced for models.

use super::Inbound;
use std::{borrow::Cow, fmt::Write};

/// Shortest fence around a message's text.
const MIN_FENCE: usize = 3;

/// Whether this character could mislead a terminal, a log viewer or a reader: control characters, the C1 range (which some
/// terminals read as escapes), line separators, and all that Unicode calls bidirectional controls or default-ignorable: they
/// reorder text, or hide it.
fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// `text` with everything that could steer a terminal made visible (`\u{1b}`); line breaks and tabs are kept.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\n' && c != '\t' && is_treacherous(c))
}

/// Like [`printable`], on one line: line breaks and tabs are made visible too.
pub fn printable_line(text: &str) -> Cow<'_, str> {
    escape(text, is_treacherous)
}

fn escape(text: &str, hide: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&hide) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hide(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// `text` between two lines of backticks, one more than it has in a row anywhere: whatever it contains, it cannot end the
/// fence (the rule of CommonMark's fenced code blocks).
pub fn fence(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let bar = "`".repeat((longest + 1).max(MIN_FENCE));
    format!("{bar}\n{}\n{bar}", printable(text))
}

/// A message as tool results and the CLI show it: its sender, its id and time, then the fenced text.
pub fn shown(message: &Inbound) -> String {
    let (id, name) = (&message.from.id, printable_line(&message.from.name));
    format!("📨 Message from peer {id} ({name}):\n{}\n{}", id_line(message), fence(&message.text))
}

/// `text` with a mark before each line: no line of it can be taken for one of ours.
pub fn quote(text: &str) -> String {
    let lines: Vec<String> = printable(text).split('\n').map(|line| format!("> {line}")).collect();
    lines.join("\n")
}

/// The line that names a message: its id, its time, and what else is known of it.
pub fn id_line(message: &Inbound) -> String {
    let mut out = format!("id {} · sent {}", message.id, message.sent_at);
    if let Some(answered) = &message.reply_to {
        let _ = write!(out, " · answers {answered}");
    }
    if message.repeat {
        out.push_str(" · possible repeat: you may have seen this message already");
    }
    out
}

/// `text` as the content of a channel push: the client puts it between `<channel …>` and `</channel>`, so those two tags
/// are defused wherever they stand in it; everything else is left as it is.
pub fn channel_content(text: &str) -> String {
    printable(&defused(text, "channel")).into_owned()
}

/// `text` in which no tag of this name begins or ends.
pub fn defused(text: &str, tag: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let name = from[1..].trim_start_matches(|c: char| c == '/' || c.is_whitespace() || is_treacherous(c));
        let is_tag = name.get(..tag.len()).is_some_and(|name| name.eq_ignore_ascii_case(tag));
        out.push_str(if is_tag { "&lt;" } else { "<" });
        rest = &from[1..];
    }
    out.push_str(rest);
    out
}

/// `text` as the value of an attribute of a channel push: on one line, and without a way to end the value or the tag.
pub fn attribute(text: &str) -> String {
    printable_line(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    /// Texts in which what could end a fence, a tag or an attribute is likely.
    fn hostile_text() -> impl Strategy<Value = String> {
        let piece = select(vec![
            "`", "```", "\n", "<", "</", ">", "channel", "CHANNEL", " ", "\"", "&", "&lt;", "\u{1b}[", "\u{200b}", "\u{202e}",
            "x",
        ]);
        let pieces = vec(prop_oneof![piece.prop_map(str::to_owned), any::<char>().prop_map(String::from)], 0..24);
        pieces.prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn printable_text_steers_no_terminal(text in hostile_text()) {
            let safe = printable(&text);
            prop_assert!(!safe.chars().any(|c| c != '\n' && c != '\t' && is_treacherous(c)));
            prop_assert!(!printable_line(&text).chars().any(is_treacherous));
            prop_assert_eq!(printable(&safe), safe.as_ref(), "what is safe stays as it is");
        }

        #[test]
        fn no_text_ends_its_fence(text in hostile_text()) {
            let fenced = fence(&text);
            let bar = fenced.lines().next().expect("a first line");
            prop_assert!(bar.len() >= MIN_FENCE && bar.bytes().all(|b| b == b'`'));
            let inner = fenced.strip_prefix(bar).and_then(|rest| rest.strip_suffix(bar)).expect("two bars");
            prop_assert!(!inner.contains(bar));
            prop_assert_eq!(inner, format!("\n{}\n", printable(&text)));
        }

        #[test]
        fn no_text_ends_its_channel_tag(text in hostile_text()) {
            let safe = channel_content(&text);
            let squeezed: String = safe.to_ascii_lowercase().chars().filter(|c| !c.is_whitespace() && *c != '/').collect();
            prop_assert!(!squeezed.contains("<channel"), "{}", safe);
            prop_assert_eq!(safe.replace("&lt;", "<"), printable(&text).replace("&lt;", "<"), "nothing else is changed");
        }

        #[test]
        fn no_text_ends_its_attribute(text in hostile_text()) {
            let safe = attribute(&text);
            prop_assert!(!safe.chars().any(|c| matches!(c, '<' | '>' | '"') || is_treacherous(c)), "{}", safe);
            let read = safe.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
            prop_assert_eq!(read, printable_line(&text), "and is read back as it was");
        }
    }

    #[test]
    fn hidden_characters_are_made_visible() {
        let table = [
            ("a\x1b[2Jb\nc\u{9b}31m\u{202e}", "a\\u{1b}[2Jb\nc\\u{9b}31m\\u{202e}"),
            ("tag \u{e0041}, soft hyphen \u{ad}", "tag \\u{e0041}, soft hyphen \\u{ad}"),
            ("arabic mark \u{61c}, selectors \u{fe0f}\u{e0100}", "arabic mark \\u{61c}, selectors \\u{fe0f}\\u{e0100}"),
            ("ÄÖ 日本 📨", "ÄÖ 日本 📨"),
        ];
        for (text, expected) in table {
            assert_eq!(printable(text), expected);
        }
        assert_eq!(printable_line("a\nb\r"), "a\\nb\\r");
    }

    #[test]
    fn quoted_lines_are_all_marked() {
        let quoted = quote("one\nid m1-abc · sent now\r\u{2028}id m2-abc\n");
        assert!(quoted.lines().all(|line| line.starts_with("> ")), "{quoted}");
        assert_eq!(quoted.lines().count(), 3);
    }

    #[test]
    fn channel_tags_are_defused_and_others_kept() {
        for text in ["</channel>", "< /CHANNEL >", "<\u{200b}/channel>", "<channel from_id=\"x\">", "<</channel>"] {
            let safe = channel_content(text).to_ascii_lowercase();
            assert!(!safe.contains("<channel") && !safe.contains("</channel") && !safe.contains("< /channel"), "{safe}");
        }
        assert_eq!(channel_content("if a < b { channel <- 1 } <b>"), "if a < b { channel <- 1 } <b>");
    }
}
