//! The id of a line that cannot be used: whoever sent it gets an error under that id and does not wait for ever.
//!
//! The scan takes the line as it is, broken or not, and in pieces of any size: only strings and brackets matter to it. It keeps
//! one short token, however long or deeply nested the line is.

/// Longest key or id that is looked at, in bytes.
const LONGEST_TOKEN: usize = 256;

/// A scan of the object at the top of a line.
#[derive(Debug, Default)]
pub struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Something else than an object stands there, or the object is over.
    done: bool,
    /// The key or the value that is being read, as it is written.
    token: Vec<u8>,
    /// The key of that value.
    key: Vec<u8>,
    id: Option<String>,
    is_request: bool,
    is_answer: bool,
}

impl Scan {
    /// A scan of a whole line.
    pub fn of(line: &[u8]) -> Self {
        let mut scan = Self::default();
        scan.feed(line);
        scan
    }

    /// Goes on with the next piece of the line.
    pub fn feed(&mut self, piece: &[u8]) {
        for byte in piece {
            if self.done {
                return;
            }
            if self.in_string {
                self.in_string = self.escaped || *byte != b'"';
                self.escaped = !self.escaped && *byte == b'\\';
                self.keep(*byte);
            } else {
                self.outside_strings(*byte);
            }
        }
    }

    /// The id, as it is written: a text or a number.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether the line answers a request: such a line is never answered itself.
    pub fn is_answer(&self) -> bool {
        self.is_answer && !self.is_request
    }

    fn outside_strings(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.in_string = true;
                self.keep(byte);
            }
            b'{' | b'[' => {
                self.depth += 1;
                self.done = self.depth == 1 && byte == b'[';
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    self.end_value();
                    self.done = true;
                }
            }
            b':' if self.depth == 1 => self.key = std::mem::take(&mut self.token),
            b',' if self.depth == 1 => self.end_value(),
            _ if byte.is_ascii_whitespace() => {}
            _ => {
                self.done = self.depth == 0;
                self.keep(byte);
            }
        }
    }

    fn keep(&mut self, byte: u8) {
        // One byte too many tells that it is too long.
        if self.depth == 1 && self.token.len() <= LONGEST_TOKEN {
            self.token.push(byte);
        }
    }

    fn end_value(&mut self) {
        let value = std::mem::take(&mut self.token);
        match std::mem::take(&mut self.key).as_slice() {
            b"\"id\"" => self.id = as_id(value),
            b"\"method\"" => self.is_request = true,
            b"\"result\"" | b"\"error\"" => self.is_answer = true,
            _ => {}
        }
    }
}

/// `token`, if it can stand as the id of an answer.
fn as_id(token: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(token).ok().filter(|text| text.len() <= LONGEST_TOKEN)?;
    let is_text = text.len() > 1 && text.starts_with('"') && text.ends_with('"') && text.bytes().all(|byte| byte >= b' ');
    let is_number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    (is_text || is_number).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    /// Keys and values in which what could mislead a scan is likely.
    fn object() -> impl Strategy<Value = Map<String, Value>> {
        let text = || prop_oneof![r#"["\\{}\[\],:a]{0,6}"#, any::<String>()];
        let leaf = prop_oneof![text().prop_map(Value::from), any::<i64>().prop_map(Value::from), Just(Value::Null)];
        let value = leaf.prop_recursive(3, 12, 4, move |inner| {
            let keys = prop_oneof![Just("id".to_owned()), text()];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(keys, inner, 0..4)
                    .prop_map(|map| Value::from(map.into_iter().collect::<Map<_, _>>())),
            ]
        });
        prop::collection::btree_map(text(), value, 0..5).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn the_id_is_found_wherever_it_stands_and_however_the_line_is_cut(
            mut rest in object(), id in prop_oneof![any::<i64>().prop_map(Value::from), any::<String>().prop_map(Value::from)],
            cut in any::<prop::sample::Index>(),
        ) {
            rest.remove("id");
            let short = id.to_string().len() <= LONGEST_TOKEN;
            rest.insert("id".to_owned(), id.clone());
            let line = Value::from(rest).to_string();
            let (start, end) = line.as_bytes().split_at(cut.index(line.len()));
            let mut scan = Scan::default();
            scan.feed(start);
            scan.feed(end);
            prop_assert_eq!(scan.id().map(str::to_owned), short.then(|| id.to_string()));
        }

        #[test]
        fn no_bytes_harm_it(bytes in any::<Vec<u8>>()) {
            let scan = Scan::of(&bytes);
            prop_assert!(scan.token.len() <= LONGEST_TOKEN + 1);
        }
    }

    #[test]
    fn the_id_is_found_in_lines_that_are_broken() {
        for line in [
            &br#"{"jsonrpc":"2.0","id":5,"method":"m","params":{"a":"\ud83d"}}"#[..],
            br#"{"params":{"id":6,"a":["\ud83d\\\"",{"id":7}]},"id" : 5 , "method":"m"}"#,
            b"{\"method\":\"m\",\"params\":{\"a\":\"\xff\xfe\"},\"id\":5}",
            br#"{"method":"m","params":{"a":nonsense},"id":5}"#,
            br#"{"method":"m","params":{"a":1e999},"id":5} and more"#,
            br#"{"id":4,"id":5,"method":"m","params":{"never":"ends"#,
        ] {
            let scan = Scan::of(line);
            assert_eq!((scan.id(), scan.is_answer()), (Some("5"), false), "{}", String::from_utf8_lossy(line));
        }
        assert_eq!(Scan::of(br#"{"id":"a\ud83d","method":"m"}"#).id(), Some(r#""a\ud83d""#), "half an emoji in the id itself");
    }

    #[test]
    fn what_is_no_id_is_not_given_back() {
        let long = format!(r#"{{"id":"{}","method":"m"}}"#, "x".repeat(LONGEST_TOKEN));
        for line in [
            r#"{"id":null}"#,
            r#"{"id":{"id":1}}"#,
            r#"{"id":[1]}"#,
            r#"{"id":true}"#,
            r#"{"id":1-}"#,
            r#"{"id":12"#, // who knows how it goes on
            r#"{"params":{"id":1}}"#,
            r#"{"text":"\"id\":1,"}"#,
            r#"[{"id":1}]"#,
            r#"noise {"id":1}"#,
            "",
            &long,
        ] {
            assert_eq!(Scan::of(line.as_bytes()).id(), None, "{line}");
        }
        let answer = json!({"id": 1, "result": {"method": "m"}}).to_string();
        assert!(Scan::of(answer.as_bytes()).is_answer());
    }
}
