//! Half an emoji: one half of a surrogate pair, such as `\ud83d`, which Claude Code accepts in a string and our parsers refuse.
//!
//! It is hidden as a character for private use, `\ue83d`, so the text stays as long.

use std::ops::RangeInclusive;

const HIGH: RangeInclusive<u16> = 0xd800..=0xdbff;
const LOW: RangeInclusive<u16> = 0xdc00..=0xdfff;
const HIDDEN: RangeInclusive<u16> = 0xe800..=0xefff;

/// The JSON text with its halves hidden.
pub fn hidden(text: &str) -> String {
    let mut escapes = escapes(text).into_iter().peekable();
    let mut halves = Vec::new();
    while let Some((at, code)) = escapes.next() {
        let is_second = |next: &(usize, u16)| next.0 == at + 6 && LOW.contains(&next.1);
        let is_pair = HIGH.contains(&code) && escapes.next_if(is_second).is_some();
        if !is_pair && (HIGH.contains(&code) || LOW.contains(&code)) {
            halves.push(at);
        }
    }
    with(text, &halves, ["e", "E"])
}

/// The text with the halves that [`hidden`] hid; none if `before`, the text from before that, has such characters of its own.
pub fn shown(text: &str, before: &str) -> Option<String> {
    let private =
        |text| -> Vec<usize> { escapes(text).into_iter().filter(|(_, code)| HIDDEN.contains(code)).map(|(at, _)| at).collect() };
    private(before).is_empty().then(|| with(text, &private(text), ["d", "D"]))
}

/// The places and codes of escapes such as `\ud83d`.
fn escapes(text: &str) -> Vec<(usize, u16)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(next) = text[at..].find('\\') {
        at += next;
        let digits = text[at..].strip_prefix("\\u").and_then(|rest| rest.get(..4));
        if let Some(code) = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) {
            found.push((at, code));
        }
        at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8);
    }
    found
}

/// The text with `digit`, lower or upper case, as the first of the escapes at `places`.
fn with(text: &str, places: &[usize], [lower, upper]: [&str; 2]) -> String {
    let mut text = text.to_owned();
    for at in places {
        let digit = at + 2..at + 3;
        let new = if text[digit.clone()].chars().any(char::is_uppercase) { upper } else { lower };
        text.replace_range(digit, new);
    }
    text
}
