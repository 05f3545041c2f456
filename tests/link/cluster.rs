//! A hub of three nodes, which hold every message three times.

use crate::{
    admin,
    hub::Hub,
    support::{eventually, unused_port},
};
use async_nats::{Client, jetstream};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::{runtime::Runtime, time::timeout};

/// The stream of the link.
const STREAM: &str = "claude-peers";
/// Makes all nodes read their configuration.
const APPLY: &str = "for node in node-*.pid; do nats-server --signal reload=$node; done";
/// How long the cluster may take to answer the administrator. Without an answer, the question is asked again.
const ANSWER: Duration = Duration::from_secs(2);

/// Three servers. Dropping it kills them.
pub struct Cluster {
    /// Its owner's files, without a server of its own.
    pub hub: Hub,
    hosts: [String; 3],
    nodes: [Option<Child>; 3],
}

impl Cluster {
    /// Three running nodes on this host.
    pub fn start() -> Self {
        let mut cluster = Self::of(["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
        (0..3).for_each(|node| cluster.launch(node));
        cluster
    }

    /// Nodes on these hosts, which are not started yet.
    pub fn of(hosts: [&str; 3]) -> Self {
        let hub = Hub::set_up_on(&hosts, &["--replicas", "3", "--apply", APPLY]);
        let written = fs::read_to_string(hub.folder().join("hub/nats-server.conf")).unwrap();
        let cluster = Self { hosts: hosts.map(str::to_owned), hub, nodes: [None, None, None] };
        // The same port on three addresses.
        let routes = unused_port();
        let all: Vec<String> = hosts.iter().map(|host| format!("nats://{host}:{routes}")).collect();
        for (node, host) in hosts.iter().enumerate() {
            let of_node = |line: &str| match line.split_once(':').map_or(line, |(word, _)| word.trim()) {
                "server_name" => format!("server_name: node-{node}"),
                "listen" => format!("listen: \"{host}:{}\"", cluster.hub.port()),
                "pid_file" => format!("pid_file: \"node-{node}.pid\""),
                "store_dir" => format!("store_dir: \"store-{node}\""),
                _ => line.to_owned(),
            };
            let lines: Vec<String> = written.lines().map(of_node).collect();
            let routed = format!("cluster {{ name: hub, listen: \"{host}:{routes}\", routes: {all:?} }}");
            fs::write(cluster.file(node, "conf"), format!("{}\n{routed}\n", lines.join("\n"))).unwrap();
        }
        cluster
    }

    /// Starts a node, and waits until it greets a connection.
    pub fn launch(&mut self, node: usize) {
        let log = fs::File::options().create(true).append(true).open(self.file(node, "log")).unwrap();
        let mut server = Command::new("nats-server");
        server.arg("--config").arg(self.file(node, "conf")).current_dir(self.hub.folder().join("hub"));
        self.nodes[node] = Some(server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        eventually("the node greets", || {
            let mut greeting = String::new();
            BufReader::new(TcpStream::connect((self.hosts[node].as_str(), self.hub.port())).ok()?)
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

    /// Waits until the stream is up to date on three nodes; returns the node that leads it.
    pub fn whole(&self) -> usize {
        eventually("the stream is up to date on three nodes", || self.leader_with(2))
    }

    /// The node that leads the stream, if as many others as this are up to date.
    fn leader_with(&self, followers: usize) -> Option<usize> {
        let cluster = self.ask(async |client| {
            let stream = timeout(ANSWER, jetstream::new(client).get_stream(STREAM)).await.ok()?.ok()?;
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
            let step_down = format!("$JS.API.STREAM.LEADER.STEPDOWN.{}", STREAM);
            self.ask(async |client| drop(timeout(ANSWER, client.request(step_down, "".into())).await));
            None
        });
    }

    /// Does something as the administrator.
    fn ask<T>(&self, question: impl AsyncFnOnce(Client) -> T) -> T {
        let addresses: Vec<String> = self.hosts.iter().map(|host| format!("{host}:{}", self.hub.port())).collect();
        let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { question(admin::connect(&self.hub, &addresses).await).await })
    }

    fn file(&self, node: usize, kind: &str) -> std::path::PathBuf {
        self.hub.folder().join(format!("hub/node-{node}.{kind}"))
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
