//! Text from peers is data wherever it is shown: terminals and logs get it made harmless, models get it fenced.

use super::Inbound;
use icu_properties::{
    CodePointSetData,
    props::{DefaultIgnorableCodePoint, Emoji},
};
use serde_json::Value;
use std::{borrow::Cow, fmt::Write};

/// Shortest fence around a message's text.
const MIN_FENCE: usize = 3;
/// Joins two emoji into one.
const ZERO_WIDTH_JOINER: char = '\u{200d}';
/// Asks for a symbol's colourful form.
const EMOJI_FORM: char = '\u{fe0f}';
/// Makes a key of the digit before it.
const KEYCAP: char = '\u{20e3}';

/// Whether this character could mislead a terminal, a log viewer or a reader: control characters, the C1 range (which some
/// terminals read as escapes), line separators, annotation marks, and all that Unicode calls default-ignorable, which hides text or
/// (as the bidirectional controls, all among them) reorders it.
fn is_treacherous(c: char) -> bool {
    match c {
        '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}' => true,
        _ => c.is_control() || !c.is_ascii() && CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c),
    }
}

/// Whether `c` is the part of an emoji between these two characters that shows: then it hides nothing.
fn forms_emoji(before: Option<char>, c: char, after: Option<char>) -> bool {
    let is_emoji = |c: Option<char>| c.is_some_and(|c| !c.is_ascii() && CodePointSetData::new::<Emoji>().contains(c));
    match c {
        EMOJI_FORM => is_emoji(before) || after == Some(KEYCAP),
        ZERO_WIDTH_JOINER => (is_emoji(before) || before == Some(EMOJI_FORM)) && is_emoji(after),
        _ => false,
    }
}

/// `text` with everything that could steer a terminal, or hide, made visible (`\u{1b}`); line breaks and tabs are kept, and the
/// joiners inside of emoji.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\n' && c != '\t' && is_treacherous(c), |c| c.escape_default().to_string())
}

/// Like [`printable`], on one line: line breaks and tabs are made visible too.
pub fn printable_line(text: &str) -> Cow<'_, str> {
    escape(text, is_treacherous, |c| c.escape_default().to_string())
}

/// The same JSON, as harmless as [`printable`] text. Serialized JSON has escaped the ASCII controls, and all else that could do harm
/// stands in its strings.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    let unit = |unit: &u16| format!("\\u{unit:04x}");
    escape(json, |c| c > '~' && is_treacherous(c), |c| c.encode_utf16(&mut [0; 2]).iter().map(unit).collect())
}

/// `text` for a model that reads it in JSON, which shows the ASCII controls by itself: all else that hides or steers is made visible.
pub fn visible(text: &str) -> Cow<'_, str> {
    escape(text, |c| c > '~' && is_treacherous(c), |c| c.escape_default().to_string())
}

/// The value with `show` applied to each of its texts.
pub fn each_text(value: Value, show: fn(&str) -> Cow<'_, str>) -> Value {
    match value {
        Value::String(text) => show(&text).into(),
        Value::Array(list) => list.into_iter().map(|value| each_text(value, show)).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, each_text(value, show))).collect(),
        other => other,
    }
}

fn escape(text: &str, hides: impl Fn(char) -> bool, shown: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.chars().any(&hides) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if hides(c) && !forms_emoji(safe.chars().next_back(), c, rest.peek().copied()) {
            safe.push_str(&shown(c));
        } else {
            safe.push(c);
        }
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

/// `text` with a mark before each line, so that no line can look like one that we wrote.
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

/// `text` in which no tag of this name can begin or end.
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

/// Checks that `text` stays where each function puts it, and that none of it hides.
#[cfg(any(test, fuzzing))]
pub fn check(text: &str) {
    let is_plain = |text: &str| {
        !text.chars().any(|c| is_treacherous(c) && c != EMOJI_FORM && c != ZERO_WIDTH_JOINER) && printable_line(text) == text
    };
    let safe = printable(text);
    assert!(is_plain(&safe.replace(['\n', '\t'], "")) && is_plain(&printable_line(text)));
    assert_eq!(printable(&safe), safe.as_ref(), "what is safe stays as it is");

    let fenced = fence(text);
    let bar = fenced.split('\n').next().unwrap_or_default();
    assert!(bar.len() >= MIN_FENCE && bar.bytes().all(|b| b == b'`'));
    let inner = fenced.strip_prefix(bar).and_then(|rest| rest.strip_suffix(bar)).unwrap_or_default();
    assert!(!inner.contains(bar));
    assert_eq!(inner, format!("\n{safe}\n"));
    assert!(quote(text).split('\n').all(|line| line.starts_with("> ")));

    let content = channel_content(text);
    let names = content.to_ascii_lowercase();
    let mut names = names.split('<').skip(1).map(|tag| tag.trim_start_matches(|c: char| c == '/' || c.is_whitespace()));
    assert!(!names.any(|name| name.starts_with("channel")), "{content}");
    assert_eq!(content.replace("&lt;", "<"), safe.replace("&lt;", "<"), "nothing else is changed");

    let value = attribute(text);
    assert!(is_plain(&value) && !value.contains(['<', '>', '"']), "{value}");
    let read = value.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    assert_eq!(read, printable_line(text), "the attribute is read back as it was");

    let json = Value::from(text).to_string();
    let plain = printable_json(&json);
    assert!(is_plain(&plain), "{plain}");
    assert_eq!(serde_json::from_str::<Value>(&plain).unwrap_or_default(), text);
}

/// A text as one line of at most `most` characters, harmless for a terminal.
pub fn first_words(text: &str, most: usize) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = printable_line(&words);
    match line.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    /// Texts in which what could end a fence, a tag or an attribute, or hide, is likely.
    fn hostile_text() -> impl Strategy<Value = String> {
        let piece = select(vec![
            "`", "```", "\n", "<", "</", ">", "channel", "CHANNEL", " ", "\"", "&", "&lt;", "\u{1b}[", "\u{200b}", "\u{202e}",
            "x", "\u{200d}", "\u{fe0f}", "❤", "👩",
        ]);
        let pieces = vec(prop_oneof![piece.prop_map(str::to_owned), any::<char>().prop_map(String::from)], 0..24);
        pieces.prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_place(text in hostile_text()) {
            check(&text);
        }
    }

    #[test]
    fn hidden_characters_are_made_visible() {
        let table = [
            ("a\x1b[2Jb\nc\u{9b}31m\u{202e}", "a\\u{1b}[2Jb\nc\\u{9b}31m\\u{202e}"),
            ("tag \u{e0041}, soft hyphen \u{ad}, joiner \u{34f}", "tag \\u{e0041}, soft hyphen \\u{ad}, joiner \\u{34f}"),
            ("fillers \u{115f}\u{1160}\u{3164}\u{ffa0}", "fillers \\u{115f}\\u{1160}\\u{3164}\\u{ffa0}"),
            ("arabic mark \u{61c}, selectors \u{fe0f}\u{e0100}", "arabic mark \\u{61c}, selectors \\u{fe0f}\\u{e0100}"),
            ("ÄÖ 日本 📨 ❤\u{fe0f} 👩\u{200d}💻 1\u{fe0f}\u{20e3}", "ÄÖ 日本 📨 ❤\u{fe0f} 👩\u{200d}💻 1\u{fe0f}\u{20e3}"),
            ("❤\u{fe0f}\u{fe0f} a\u{200d}💻 💻\u{200d}", "❤\u{fe0f}\\u{fe0f} a\\u{200d}💻 💻\\u{200d}"),
        ];
        for (text, expected) in table {
            assert_eq!(printable(text), expected);
        }
        assert_eq!(printable_line("a\nb\r"), "a\\nb\\r");
        assert_eq!(printable_json("\"\u{9b}\u{e0041}\""), r#""\u009b\udb40\udc41""#);
    }
}
