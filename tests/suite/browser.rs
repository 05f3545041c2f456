//! The web page of `claude-peers export`, opened in a real browser.

use crate::support::{Broker, events::Peer, eventually, folder, installed};
use serde_json::json;
use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// The elements of the page.
const ELEMENTS: [&str; 14] =
    ["article", "b", "body", "h1", "head", "header", "html", "meta", "p", "pre", "section", "style", "time", "title"];

/// Killed if the test fails before it ends.
struct Chromium(Child);

impl Drop for Chromium {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Chromium's document after it has opened this page and run what it runs.
fn opened(page: &str) -> String {
    let folder = folder();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("page.html"), page).unwrap();
    let mut chromium = Command::new("chromium");
    // Its own sandbox needs rights that containers do not have.
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    chromium.args(["--disable-background-networking", "--virtual-time-budget=10000", "--dump-dom"]);
    chromium.arg(format!("--user-data-dir={}", file("profile").display())).arg(format!("file://{}", file("page.html").display()));
    chromium.env("HOME", folder.path()).stdin(Stdio::null()).stderr(fs::File::create(file("log")).unwrap());
    let mut chromium = Chromium(chromium.stdout(fs::File::create(file("document")).unwrap()).spawn().unwrap());
    let ended = eventually("Chromium has opened the page", || chromium.0.try_wait().unwrap());
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    assert!(ended.success(), "{ended}\n{}", read(&file("log")));
    read(&file("document"))
}

/// A port that nothing may connect to, and whether something did. It answers nothing and closes each connection.
struct Trap {
    address: SocketAddr,
    has_sprung: Arc<AtomicBool>,
}

impl Trap {
    fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let trap = Self { address: listener.local_addr().unwrap(), has_sprung: Arc::default() };
        let has_sprung = trap.has_sprung.clone();
        thread::spawn(move || listener.incoming().for_each(|_| has_sprung.store(true, Ordering::SeqCst)));
        trap
    }

    fn has_sprung(&self) -> bool {
        self.has_sprung.load(Ordering::SeqCst)
    }
}

/// Markup that loads something from there, or runs a script that does.
fn attacks(trap: &Trap) -> [String; 12] {
    let url = format!("http://{}", trap.address);
    let script = format!("document.title = 'attacked'; new Image().src = '{url}/script'; fetch('{url}/fetch')");
    [
        format!("</pre><script>{script}</script>"),
        format!("</style></title><script src={url}/src.js></script>"),
        format!("<img src={url}/image onerror=\"{script}\">"),
        format!("<svg onload=\"{script}\"><image href={url}/svg></svg>"),
        format!(
            "<link rel=stylesheet href={url}/style.css><style>@import '{url}/import.css'; body {{ background: url({url}/b) }}</style>"
        ),
        format!("<iframe src={url}/frame srcdoc=\"<script>{script}</script>\"></iframe><object data={url}/object></object>"),
        format!("<video autoplay src={url}/video></video><audio autoplay src={url}/audio></audio>"),
        format!("<details open ontoggle=\"{script}\"><input autofocus onfocus=\"{script}\">"),
        format!("<a href=\"javascript:{script}\" ping={url}/ping>x</a> javascript:alert(1) {url}/plain"),
        "--> <!-- ]]> <![CDATA[ <plaintext> <textarea> <noscript> <template> &lt;b&gt; &#60;b&#62; &amp;lt;".to_owned(),
        "\" onmouseover=\"alert(1) ' style='position:fixed' class=\"expired".to_owned(),
        format!("<base href={url}/><form action={url}/form><button>x</button></form>"),
    ]
}

/// The names of all elements, in the text form of a document, where only tags begin with `<`.
fn elements(document: &str) -> BTreeSet<&str> {
    let (before, style) = document.split_once("<style>").unwrap();
    let (_, after) = style.split_once("</style>").unwrap();
    let names = [before, after].map(|part| part.split('<').skip(1).collect::<Vec<_>>()).concat();
    let name = |tag: &'_ str| tag.len() - tag.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric()).len();
    let open = names.into_iter().filter(|tag| !tag.starts_with(['/', '!']));
    open.map(|tag| &tag[..name(tag)]).chain(["style"]).collect()
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u{a0}").replace("&amp;", "&")
}

#[test]
fn text_is_data_in_chromium() {
    if !installed("chromium") {
        return;
    }
    let broker = Broker::with(&[("CLAUDE_PEERS_RATE_LIMIT", "0")]);
    let http = broker.http();
    let [shop, _] = ["shop", "web"].map(|name| Peer::register(&http, name, json!({"cwd": format!("/src/{name}")})).over(&http));
    let trap = Trap::set();
    let mut attacks = attacks(&trap).to_vec();
    // No policy of a page forbids this.
    attacks.push(format!("<meta http-equiv=refresh content=\"0;url=http://{}/\">", trap.address));
    for text in attacks.iter().map(String::as_str).chain(["\u{202e}evil\u{2066}\u{1b}[2J\u{200b}\u{e0041}"]) {
        shop.post("/v1/send", &json!({"to": "web", "text": text})).json();
    }
    let output = broker.cli(&["export", "--html"]).output().unwrap();
    let document = opened(&String::from_utf8(output.stdout).unwrap());
    assert!(!trap.has_sprung(), "something is loaded:\n{document}");
    assert!(document.contains("<title>Conversations</title>"), "a script has run:\n{document}");
    assert_eq!(elements(&document), BTreeSet::from(ELEMENTS), "{document}");
    let mut shown = document.split("<pre>").skip(1).map(|rest| unescaped(rest.split("</pre>").next().unwrap()));
    for attack in attacks {
        assert_eq!(shown.next().unwrap(), attack);
    }
    let hidden = shown.next().unwrap();
    let invisible = |letter: char| letter.is_control() || "\u{202e}\u{2066}\u{200b}\u{e0041}".contains(letter);
    assert!(hidden.contains("evil") && !hidden.contains(invisible), "{hidden:?}");
}

#[test]
fn page_runs_and_loads_nothing_even_with_markup() {
    if !installed("chromium") {
        return;
    }
    let broker = Broker::start();
    let output = broker.cli(&["export", "--html"]).output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    let trap = Trap::set();
    let attacks = attacks(&trap).concat();
    let attacked = |page: &str| page.replace("</h1>", &format!("</h1>{attacks}"));
    let document = opened(&attacked(&page));
    assert!(document.contains("<title>Conversations</title>") && !trap.has_sprung(), "{document}");
    // The same without the page's policy shows that the trap works.
    let (before, rest) = page.split_once("<meta http-equiv").unwrap();
    let document = opened(&attacked(&format!("{before}{}", rest.split_once('>').unwrap().1)));
    assert!(document.contains("<title>attacked</title>") && trap.has_sprung(), "{document}");
}
