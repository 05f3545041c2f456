//! A hub of three nodes, of which one is killed or cut off.

use crate::{
    cluster::Cluster,
    net::Net,
    support::installed,
    traffic::{Traffic, UNLIMITED},
    world::Machine,
};

#[test]
fn mail_survives_a_killed_node_and_a_killed_leader() {
    if !installed("nats-server") {
        return;
    }
    let mut cluster = Cluster::start();
    let machines = ["laptop", "desktop"].map(|name| Machine::linked_with(name, &cluster.hub, &UNLIMITED));
    let machines = machines.each_ref();
    let mut traffic = Traffic::between(machines);
    for follows in [1, 0] {
        traffic.send(machines, 20);
        let killed = (cluster.whole() + follows) % 3;
        cluster.kill(killed);
        traffic.send(machines, 20);
        cluster.launch(killed);
        cluster.whole();
    }
    traffic.send(machines, 20);
    traffic.arrives(machines);
}

#[test]
fn mail_survives_a_cluster_whose_leader_is_cut_off() {
    if !installed("nats-server") {
        return;
    }
    let hubs = ["node-0", "node-1", "node-2"];
    let Some(net) = Net::of(&hubs, &["laptop", "desktop"]) else { return };
    let addresses = ["10.77.0.1", "10.77.0.2", "10.77.0.3"];
    let mut cluster = Cluster::of(addresses);
    hubs.iter().enumerate().for_each(|(node, host)| net.on(host, || cluster.launch(node)));
    let machines = ["laptop", "desktop"].map(|name| net.on(name, || Machine::linked_with(name, &cluster.hub, &UNLIMITED)));
    let machines = machines.each_ref();
    let mut traffic = Traffic::between(machines);
    traffic.send(machines, 20);
    net.on("node-2", || cluster.elect(0));

    // The laptop is alone with the node that led the stream.
    net.part(&["node-0", "laptop"]);
    let [here, there] = traffic.send(machines, 20);
    machines[1].broker.message_once("forwarded", &there);
    machines[0].sees_no_more(traffic.name(1));
    machines[1].sees_no_more(traffic.name(0));
    assert_eq!(machines[0].broker.message(&here)["state"], "queued", "one of three nodes acknowledges nothing");
    net.heal();
    traffic.send(machines, 20);
    traffic.arrives(machines);
}
