//! Values in a URL's query.

use std::fmt::Write;

/// `path` with `pairs` as its query, every value percent-encoded (RFC 3986: all but the unreserved characters).
pub fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut out = path.to_owned();
    for (position, (name, value)) in pairs.iter().enumerate() {
        out.push(if position == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(byte.into());
            } else {
                let _ = write!(out, "%{byte:02X}"); // writing to a String cannot fail
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::with_query;

    #[test]
    fn values_cannot_end_their_place_in_the_query() {
        assert_eq!(with_query("/v1/peers", &[]), "/v1/peers");
        let query = with_query("/v1/peers", &[("scope", "repo"), ("cwd", "/tmp/a b&c=ü#?")]);
        assert_eq!(query, "/v1/peers?scope=repo&cwd=%2Ftmp%2Fa%20b%26c%3D%C3%BC%23%3F");
    }
}
