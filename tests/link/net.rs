//! Hosts of our own: network namespaces, each with a cable (a veth pair) to a switch (a bridge in one more namespace).
//!
//! What is started inside a host has the host's network and no other. On the hosts of machines, 127.0.0.1 leads over the cable to the hub, so a
//! hub that listens on 127.0.0.1 is reached from everywhere, whatever its configuration says. Needs root.

use crate::support::random::Random;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::fd::AsFd,
    panic::resume_unwind,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc::channel},
    thread,
    time::{Duration, Instant},
};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// What a host sets up once its cable is there. `$1` is its number.
const HOST: &str = "
ip link set lo up
ip addr add 10.77.0.$1/24 dev eth0
ip link set eth0 up
cd /proc/sys/net/ipv4
echo 1 | tee conf/all/route_localnet conf/all/accept_local ip_nonlocal_bind >/dev/null
echo 0 >conf/all/rp_filter";
/// Lets 127.0.0.1 lead from the host with the number `$1` to the first hub.
const LEAD: &str = "
ip route del local 127.0.0.1 dev lo table local
ip route del local 127.0.0.0/8 dev lo table local
ip route add 127.0.0.1 via 10.77.0.1 dev eth0 src 10.77.0.$1";
/// The cable of a host: `$1` is its name, which is that of its port too, and `$2` is a process in it.
const CABLE: &str = "ip link add $1 type veth peer name eth0 netns $2 && ip link set $1 master switch up";
/// How long a frame is on a slow cable.
pub const DELAY: Duration = Duration::from_millis(200);
/// The longest frame on a slow cable.
const FRAME: usize = 65_536;

/// Some hosts on one switch. Their addresses are 10.77.0.1 and so on, those of the hubs first.
pub struct Net {
    switch: Namespace,
    hosts: Vec<Host>,
}

struct Host {
    name: &'static str,
    number: String,
    namespace: Namespace,
}

impl Net {
    /// Hosts for hubs and machines; those of the machines lead to the first hub. `None`, with a message, where there can be none.
    pub fn of(hubs: &[&'static str], machines: &[&'static str]) -> Option<Self> {
        Self::with_slow(hubs, machines, &[])
    }

    /// The same; the cables of `slow` delay each frame by 200 ms and lose 5 % of them, each way.
    ///
    /// A slow cable is a pair of TAP devices, between which this process carries the frames. The kernel's own way (`tc qdisc add … netem`) would be
    /// shorter, but many kernels are built without it.
    pub fn with_slow(hubs: &[&'static str], machines: &[&'static str], slow: &[&str]) -> Option<Self> {
        let Some(switch) = Namespace::new() else {
            let is_required = std::env::var_os("CLAUDE_PEERS_HOST_TESTS").is_some_and(|value| value == "required");
            assert!(!is_required, "no network namespaces can be had: they need root");
            eprintln!("SKIPPED: no network namespaces can be had: they need root");
            return None;
        };
        switch.run("ip link add switch type bridge && ip link set switch up", &[]);
        switch.run("ip link add island type bridge && ip link set island up", &[]);
        let mut net = Self { switch, hosts: Vec::new() };
        for name in hubs.iter().chain(machines) {
            net.add(name, slow.contains(name));
        }
        for machine in machines {
            let machine = net.host(machine);
            machine.namespace.run(LEAD, &[&machine.number]);
        }
        Some(net)
    }

    fn add(&mut self, name: &'static str, is_slow: bool) {
        let (namespace, number) = (Namespace::new().unwrap(), (self.hosts.len() + 1).to_string());
        if is_slow {
            lay_slow_cable(&self.switch, &namespace, name);
        } else {
            self.switch.run(CABLE, &[name, &namespace.pid()]);
        }
        namespace.run(HOST, &[&number]);
        self.hosts.push(Host { name, number, namespace });
    }

    fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).unwrap()
    }

    /// Does something on a host. The programs that it starts stay there.
    pub fn on<T: Send>(&self, host: &str, task: impl FnOnce() -> T + Send) -> T {
        self.host(host).namespace.inside(task)
    }

    /// Parts these hosts from all others: frames between the two sides vanish, and no host can see why.
    pub fn part(&self, hosts: &[&str]) {
        hosts.iter().for_each(|host| self.switch.run("ip link set $1 master island", &[host]));
    }

    /// Joins all hosts again.
    pub fn heal(&self) {
        self.hosts.iter().for_each(|host| self.switch.run("ip link set $1 master switch", &[host.name]));
    }
}

/// A network namespace. It ends with the process that holds it and with the programs in it.
struct Namespace {
    holder: Child,
}

impl Namespace {
    fn new() -> Option<Self> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "sh", "-c", "echo here && exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = Self { holder: unshare.stderr(Stdio::null()).spawn().ok()? };
        let mut line = String::new();
        BufReader::new(holder.holder.stdout.as_mut()?).read_line(&mut line).ok()?;
        (line == "here\n").then_some(holder)
    }

    fn pid(&self) -> String {
        self.holder.id().to_string()
    }

    /// Does something on a thread in the namespace. Threads and processes inherit it.
    fn inside<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        let inside = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            task()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn run(&self, script: &str, arguments: &[&str]) {
        let output = self.inside(|| Command::new("sh").args(["-ec", script, "sh"]).args(arguments).output().unwrap());
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// Lays a slow cable between a port of the switch and `eth0` of a host.
fn lay_slow_cable(switch: &Namespace, host: &Namespace, name: &str) {
    let tap = |name: &str| Arc::new(DeviceBuilder::new().layer(Layer::L2).name(name).build_sync().unwrap());
    let (port, eth0) = (switch.inside(|| tap(name)), host.inside(|| tap("eth0")));
    switch.run("ip link set $1 master switch up", &[name]);
    let random = Arc::new(Mutex::new(Random::seeded()));
    eprintln!("CLAUDE_PEERS_TEST_SEED={}", random.lock().unwrap().seed());
    carry(port.clone(), eth0.clone(), random.clone());
    carry(eth0, port, random);
}

/// Carries frames one way, as long as the process lives.
fn carry(from: Arc<SyncDevice>, to: Arc<SyncDevice>, random: Arc<Mutex<Random>>) {
    let (sent, arriving) = channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut frame = vec![0; FRAME];
        while let Ok(length) = from.recv(&mut frame) {
            let is_lost = random.lock().unwrap().below(100) < 5;
            if !is_lost && sent.send((Instant::now() + DELAY, frame[..length].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, frame) in arriving {
            thread::sleep(due.saturating_duration_since(Instant::now())); // the cable's length, not a wait
            drop(to.send(&frame)); // a host that is not up yet loses it
        }
    });
}
