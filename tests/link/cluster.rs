//! A hub of three nodes, which hold every message three times.

use crate::{
    admin,
    hub::{Hub, said},
    support::eventually,
};
use async_nats::{Client, jetstream};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::{runtime::Runtime, time::timeout};

/// The stream of the link.
const STREAM: &str = "claude-peers";
/// How long the cluster may take to answer its owner. Without an answer, the question is asked again.
const ANSWER: Duration = Duration::from_secs(2);
/// Makes all nodes read their configuration.
const APPLY: &str = "for file in node-*.pid; do kill -HUP $(cat $file); done";

/// Three servers. Dropping it kills them.
pub struct Cluster {
    /// Its configuration and its owner, without a server of its own.
    pub hub: Hub,
    addresses: [String; 3],
    nodes: [Option<Child>; 3],
}

impl Cluster {
    /// Three running nodes on this host.
    pub fn start() -> Self {
        let mut cluster = Self::of(["127.0.0.1", "127.0.0.2", "127.0.0.3"], None);
        (0..3).for_each(|node| cluster.launch(node));
        cluster.works();
        cluster
    }

    /// Nodes with these addresses, which are not started yet. They listen on `listen` if it is not the same.
    pub fn of(hosts: [&str; 3], listen: Option<&str>) -> Self {
        let hub = Hub::set_up();
        fs::remove_dir_all(hub.folder()).unwrap();
        let (_, port) = hub.address().rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).unwrap();
        let addresses = hosts.map(|host| format!("{host}:{port}"));
        let [first, second, third] = addresses.each_ref();
        let made = hub.owner(&["init", first, second, third, "--replicas", "3", "--apply", APPLY]);
        assert!(made.status.success(), "{}", said(&made));
        // The same port on three addresses.
        let routes = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let cluster = Self { hub, addresses, nodes: [None, None, None] };
        let configuration = fs::read_to_string(cluster.file("nats-server.conf")).unwrap();
        let all: Vec<String> = hosts.iter().map(|host| format!("nats://{host}:{routes}")).collect();
        for (node, host) in hosts.iter().enumerate() {
            let listen = listen.unwrap_or(host);
            let configuration = configuration.replace("\"store\"", &format!("\"store-{node}\""));
            // What is said twice is meant as it is said last.
            let configuration = format!(
                "{configuration}\nserver_name: node-{node}\nlisten: \"{listen}:{port}\"\npid_file: \"node-{node}.pid\"
                 cluster {{ name: hub, listen: \"{host}:{routes}\", routes: {all:?} }}\n"
            );
            fs::write(cluster.file(&format!("node-{node}.conf")), configuration).unwrap();
        }
        cluster
    }

    /// Starts a node, and waits until it greets a connection.
    pub fn launch(&mut self, node: usize) {
        let log = fs::File::options().create(true).append(true).open(self.file(&format!("node-{node}.log"))).unwrap();
        let mut server = Command::new("nats-server");
        server.args(["--config", &format!("node-{node}.conf")]).current_dir(self.hub.folder().join("hub"));
        self.nodes[node] = Some(server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        eventually("the node greets", || {
            let mut greeting = String::new();
            BufReader::new(TcpStream::connect(&self.addresses[node]).ok()?).read_line(&mut greeting).ok()?;
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

    /// Waits until it can store something three times.
    pub fn works(&self) {
        self.ask(async |client| admin::create_stream(&client, "any", "any", 3).await);
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

    /// Does something as the owner.
    fn ask<T>(&self, question: impl AsyncFnOnce(Client) -> T) -> T {
        let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { question(admin::connect(&self.hub, &self.addresses).await).await })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.hub.folder().join("hub").join(name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..3).for_each(|node| self.kill(node));
        if std::thread::panicking() {
            for node in 0..3 {
                let log = fs::read_to_string(self.file(&format!("node-{node}.log"))).unwrap_or_default();
                eprintln!("--- the log of node {node} ---\n{log}--- end of log ---");
            }
        }
    }
}
