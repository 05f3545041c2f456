//! A hub of three nodes, which hold every message three times.

use crate::{
    admin,
    hub::Hub,
    support::{eventually, folder},
};
use async_nats::{Client, jetstream};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::{runtime::Runtime, time::timeout};

/// The stream of the link.
const STREAM: (&str, &str) = ("claude-peers", "claude-peers.*.*.*");
/// How long the cluster may take to answer the administrator. Without an answer, the question is asked again.
const ANSWER: Duration = Duration::from_secs(2);

/// Three servers. Dropping it kills them.
pub struct Cluster {
    /// Its configuration and its keys, without a server of its own. Its address leads to the first node.
    pub hub: Hub,
    folder: tempfile::TempDir,
    addresses: [String; 3],
    nodes: [Option<Child>; 3],
}

impl Cluster {
    /// Three running nodes on this host, with the stream.
    pub fn start() -> Self {
        let mut cluster = Self::of(Hub::start(), ["127.0.0.1", "127.0.0.2", "127.0.0.3"], None);
        (0..3).for_each(|node| cluster.launch(node));
        cluster.create_stream();
        cluster
    }

    /// Nodes with these addresses, which are not started yet. They listen on `listen` if it is not the same.
    pub fn of(mut hub: Hub, addresses: [&str; 3], listen: Option<&str>) -> Self {
        hub.kill();
        let configuration = fs::read_to_string(hub.key("admin").with_file_name("hub.conf")).unwrap();
        let cluster = Self { addresses: addresses.map(str::to_owned), hub, folder: folder(), nodes: [None, None, None] };
        // The same port on three addresses.
        let routes = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let sync = if knows_sync_always() { ", sync_interval: always" } else { "" };
        let all: Vec<String> = addresses.iter().map(|address| format!("nats://{address}:{routes}")).collect();
        for (node, address) in addresses.iter().enumerate() {
            let store = cluster.folder.path().join(format!("store-{node}"));
            let (store, listen, port) = (store.to_str().unwrap(), listen.unwrap_or(address), cluster.port());
            // What is said twice is meant as it is said last.
            let node_configuration = format!(
                "{configuration}\nserver_name: node-{node}\nlisten: \"{listen}:{port}\"\njetstream {{ store_dir: \"{store}\"{sync} }}
                 cluster {{ name: hub, listen: \"{address}:{routes}\", routes: {all:?} }}\n"
            );
            fs::write(cluster.file(node, "conf"), node_configuration).unwrap();
        }
        cluster
    }

    /// Starts a node, and waits until it greets a connection.
    pub fn launch(&mut self, node: usize) {
        let log = fs::File::options().create(true).append(true).open(self.file(node, "log")).unwrap();
        let mut server = Command::new("nats-server");
        server.arg("--config").arg(self.file(node, "conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.nodes[node] = Some(server.spawn().unwrap());
        eventually("the node greets", || {
            let mut greeting = String::new();
            BufReader::new(TcpStream::connect((self.addresses[node].as_str(), self.port())).ok()?)
                .read_line(&mut greeting)
                .ok()?;
            greeting.starts_with("INFO").then_some(())
        });
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Creates the stream on three nodes.
    pub fn create_stream(&self) {
        self.ask(async |client| admin::create_stream(&client, STREAM.0, STREAM.1, 3).await);
        self.whole();
    }

    /// Waits until the stream is up to date on three nodes; returns the node that leads it.
    pub fn whole(&self) -> usize {
        eventually("the stream is up to date on three nodes", || self.leader_with(2))
    }

    /// The node that leads the stream, if as many others as this are up to date.
    fn leader_with(&self, followers: usize) -> Option<usize> {
        let cluster = self.ask(async |client| {
            let stream = timeout(ANSWER, jetstream::new(client).get_stream(STREAM.0)).await.ok()?.ok()?;
            stream.cached_info().cluster.clone()
        })?;
        let current = cluster.replicas.iter().filter(|replica| replica.current && !replica.offline).count();
        let leader = cluster.leader?.strip_prefix("node-")?.parse().ok()?;
        (current >= followers).then_some(leader)
    }

    /// Lets the stream elect leaders until this node is the one.
    pub fn elect(&self, node: usize) {
        eventually("the node leads the stream", || {
            if self.whole() == node {
                return Some(());
            }
            let step_down = format!("$JS.API.STREAM.LEADER.STEPDOWN.{}", STREAM.0);
            self.ask(async |client| drop(timeout(ANSWER, client.request(step_down, "".into())).await));
            None
        });
    }

    /// Does something as the administrator.
    fn ask<T>(&self, question: impl AsyncFnOnce(Client) -> T) -> T {
        let addresses: Vec<String> = self.addresses.iter().map(|address| self.hub.url().replace("127.0.0.1", address)).collect();
        let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { question(admin::connect(&self.hub, &addresses).await).await })
    }

    fn port(&self) -> u16 {
        self.hub.url().rsplit_once(':').unwrap().1.parse().unwrap()
    }

    fn file(&self, node: usize, kind: &str) -> std::path::PathBuf {
        self.folder.path().join(format!("node-{node}.{kind}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..3).for_each(|node| self.kill(node));
        if std::thread::panicking() {
            for node in 0..3 {
                let log = fs::read_to_string(self.file(node, "log")).unwrap_or_default();
                eprintln!("--- the log of node {node} ---\n{log}--- end of log ---");
            }
        }
    }
}

/// Whether the installed server can sync each message to disk: from version 2.10 on.
fn knows_sync_always() -> bool {
    let printed = Command::new("nats-server").arg("--version").output().unwrap().stdout;
    let version = String::from_utf8(printed).unwrap();
    let (_, minor) = version.trim().split_once("v2.").unwrap();
    minor.split('.').next().unwrap().parse::<u32>().unwrap() >= 10
}
