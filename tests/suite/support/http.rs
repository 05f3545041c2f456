//! HTTP by hand, so that tests can also send what no well-behaved client would.

use super::PATIENCE;
use serde_json::Value;
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

/// An HTTP client for one of the broker's sockets.
#[derive(Debug, Clone)]
pub struct Http {
    to: To,
    secret: Option<String>,
}

#[derive(Debug, Clone)]
enum To {
    Unix(PathBuf),
    Tcp(u16),
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The body of a successful answer as JSON.
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The error code of a refusal.
    pub fn code(&self) -> String {
        assert!(self.status >= 400, "HTTP {} {}", self.status, self.body);
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body));
        let code = body["error"]["code"].as_str().or_else(|| body["code"].as_str());
        code.unwrap_or_else(|| panic!("no code in {body}")).to_owned()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A connection over either socket.
pub trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

impl Http {
    pub fn unix(socket: &Path) -> Self {
        Self { to: To::Unix(socket.to_owned()), secret: None }
    }

    pub fn tcp(port: u16) -> Self {
        Self { to: To::Tcp(port), secret: None }
    }

    /// The same client, acting as the peer with this secret.
    pub fn as_peer(&self, secret: &str) -> Self {
        Self { to: self.to.clone(), secret: Some(secret.to_owned()) }
    }

    /// Opens a connection.
    pub fn connect(&self) -> Box<dyn Wire> {
        self.try_connect().unwrap()
    }

    /// Opens a connection to a broker that may be away.
    pub fn try_connect(&self) -> io::Result<Box<dyn Wire>> {
        match &self.to {
            To::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(Box::new(stream))
            }
            To::Tcp(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(Box::new(stream))
            }
        }
    }

    /// Opens a connection for several requests.
    pub fn converse(&self) -> Conversation {
        Conversation { http: self.clone(), reader: BufReader::new(self.connect()) }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, &[("Content-Type", "application/json")], &body.to_string())
    }

    /// Like [`Http::post`], for a broker that may be away or stop during the request.
    pub fn try_post(&self, path: &str, body: &Value) -> io::Result<Answer> {
        self.try_raw(&self.written("POST", path, &[("Content-Type", "application/json")], &body.to_string()))
    }

    /// Like [`Http::get`], for a broker that may be away or stop during the request.
    pub fn try_get(&self, path: &str) -> io::Result<Answer> {
        self.try_raw(&self.written("GET", path, &[], ""))
    }

    fn try_raw(&self, bytes: &[u8]) -> io::Result<Answer> {
        let mut wire = self.try_connect()?;
        wire.write_all(bytes)?;
        try_read_answer(&mut BufReader::new(wire))
    }

    /// Sends a request with these headers, plus `Host`, `Content-Length` and the secret unless given.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.raw(&self.written(method, path, headers, body))
    }

    /// The bytes of such a request. It closes the connection unless the headers contain `Connection`.
    pub fn written(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        let named = |name: &str| headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
        if !named("host") {
            let host = match self.to {
                To::Unix(_) => "localhost".to_owned(),
                To::Tcp(port) => format!("127.0.0.1:{port}"),
            };
            head += &format!("Host: {host}\r\n");
        }
        if let Some(secret) = &self.secret {
            head += &format!("Authorization: Bearer {secret}\r\n");
        }
        if !named("content-length") && !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !named("connection") {
            head += "Connection: close\r\n";
        }
        format!("{head}\r\n{body}").into_bytes()
    }

    /// Writes these bytes to a new connection and reads one answer.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut wire = self.connect();
        // The broker may refuse before it has read everything, so writing may fail.
        drop(wire.write_all(bytes));
        read_answer(wire)
    }
}

/// Reads the head of a request, or `None` if the connection ends before.
pub fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).ok().filter(|read| *read > 0)?;
    }
    Some(head)
}

/// Reads one answer.
pub fn read_answer(wire: Box<dyn Wire>) -> Answer {
    try_read_answer(&mut BufReader::new(wire)).unwrap()
}

/// Reads one answer, or an error if the connection ends before it is complete.
pub fn try_read_answer(reader: &mut impl BufRead) -> io::Result<Answer> {
    let mut next_line = || {
        let mut line = String::new();
        match reader.read_line(&mut line)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            _ => Ok(line.trim_end().to_owned()),
        }
    };
    let line = next_line()?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
    let mut headers = Vec::new();
    while let Some((name, value)) = next_line()?.split_once(": ") {
        headers.push((name.to_owned(), value.to_owned()));
    }
    if status < 200 {
        return Ok(Answer { status, headers, body: String::new() }); // an interim response
    }
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, v)| v.parse().unwrap());
    let mut body = Vec::new();
    match length {
        Some(length) => {
            body.resize(length, 0);
            reader.read_exact(&mut body)?;
        }
        None => drop(reader.read_to_end(&mut body)?),
    }
    Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

/// One connection with several requests and answers.
pub struct Conversation {
    http: Http,
    reader: BufReader<Box<dyn Wire>>,
}

impl Conversation {
    /// Writes these bytes.
    pub fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Reads the next answer, or an error if the connection has ended.
    pub fn answer(&mut self) -> io::Result<Answer> {
        try_read_answer(&mut self.reader)
    }

    /// Sends a request that keeps the connection open, and reads its answer.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let headers = [("Connection", "keep-alive"), ("Content-Type", "application/json")];
        self.say(&self.http.written(method, path, &headers, body)).unwrap();
        self.answer().unwrap()
    }

    /// Whether the other end has closed the connection, once everything before is read.
    pub fn is_closed(&mut self) -> bool {
        // A reset counts too: it happens if the other side closes with unread data.
        self.reader.fill_buf().map_or(true, <[u8]>::is_empty)
    }
}
