//! What goes over the wire.

use std::net::UdpSocket;
use std::os::fd::AsFd;

use gantry_plugin_sdk::network::{FirewallIntent, PortLease, Protocol, SetExternal};
use gantry_plugin_sdk::sys::netlink::RouteSocket;
use gantry_plugin_sdk::{Driver, ErrorCode, Reconcile};

use super::*;
use crate::secure;

#[test]
fn sandboxes_on_two_hosts_reach_each_other_while_drivers_come_and_go() {
    let (hosts, _etcd) = lab();
    let [mut one, two] = sharing(&hosts, &json!({}));
    let (a, b) = (one.sandbox("n", "a"), two.sandbox("n", "b"));
    assert_eq!(a.plan.mtu, 1450);
    assert_eq!(a.plan.gateways.len(), 2);
    a.reaches(&b);
    b.reaches(&a);
    let members = two
        .with(|driver| driver.members(&call(), Watch::default()))
        .unwrap();
    let member = &members.members[0];
    assert_eq!(
        (member.endpoint.as_str(), member.names.as_slice()),
        ("a", &["name-of-a".to_owned()][..])
    );
    assert_eq!(member.host_address, Some(one.address()));
    assert_eq!(member.addresses, [a.address(false), a.address(true)]);
    // A driver that is gone is away, and nothing else.
    one.stop();
    eventually("it is away", || two.status("Hosts") == "2 (1 away)");
    b.reaches(&a);
    assert_eq!(two.others(), ["a"]);
    one.start();
    let live = Reconcile {
        live: vec!["n".into()],
        endpoints: vec!["a".into()],
    };
    one.with(|driver| driver.reconcile(&call(), live)).unwrap();
    eventually("it is back", || two.status("Hosts") == "2 (0 away)");
    // What came meanwhile is told by the new one, without the network's being made again.
    let c = two.sandbox("n", "c");
    a.reaches(&c);
    let addresses = one.allocate("n", "a", &[]).unwrap();
    assert_eq!(addresses, a.plan.addresses);
    // What goes is not reached, and its address can be another's.
    drop(c);
    two.release("n", "c");
    two.release("n", "b");
    eventually("they are gone", || one.others().is_empty());
    // The link is told after who waits for news.
    eventually("nobody is told of it", || a.send(&b, false).is_err());
    one.release("n", "a");
    let unshare = |driver: &OverlayNetwork| driver.unshare(&call(), NetworkRef { id: "n".into() });
    drop((a, b));
    for host in [&one, &two] {
        host.delete_network("n");
        eventually("no link is left", || host.links().is_empty());
    }
    one.with(unshare).unwrap();
}

/// How many addresses a host's vxlan link knows the hosts, the port and the neighbours of.
fn told(host: &Host<'_>) -> [usize; 3] {
    let link = host.links().into_iter().find(|name| name.starts_with('x'));
    let link = link.expect("there is one");
    host.with(|_| {
        let mut socket = RouteSocket::open().unwrap();
        let index = socket.link(&link).unwrap().unwrap().index;
        let all = socket.forwarded(index).unwrap();
        [all.remote.len(), all.port.len(), all.neighbours.len()]
    })
}

#[test]
fn many_endpoints_are_told_and_taken_back() {
    const COUNT: usize = 200;
    let (hosts, _etcd) = lab();
    let [one, two] = sharing(&hosts, &json!({}));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let one = &one;
            scope.spawn(move || {
                for n in (thread..COUNT).step_by(4) {
                    one.allocate("n", &format!("e{n}"), &[]).unwrap();
                }
            });
        }
    });
    eventually("all are told", || told(&two) == [COUNT, COUNT, 2 * COUNT]);
    assert_eq!(told(&one), [0; 3], "its own need not be told");
    // As at the next start of an engine, none of whose containers lives.
    let live = Reconcile {
        live: vec!["n".into()],
        endpoints: Vec::new(),
    };
    one.with(|driver| driver.reconcile(&call(), live)).unwrap();
    eventually("all are taken back", || told(&two) == [0; 3]);
}

#[test]
fn the_way_between_hosts_may_be_ipv6() {
    let (hosts, _etcd) = lab();
    let [one, two] = [1, 2].map(|number| {
        let at = hosts.host(number);
        Host::new(at, &json!({"advertise": at.address_v6}))
    });
    one.share(network_of("n")).unwrap();
    one.create("n");
    two.create("n");
    let (a, b) = (one.sandbox("n", "a"), two.sandbox("n", "b"));
    assert_eq!(a.plan.mtu, 1430);
    a.reaches(&b);
    b.reaches(&a);
}

#[test]
fn a_host_may_get_another_address_and_a_number_another_network() {
    let (hosts, _etcd) = lab();
    let [mut one, mut two] = sharing(&hosts, &json!({}));
    let (a, b) = (one.sandbox("n", "a"), two.sandbox("n", "b"));
    a.reaches(&b);
    for (host, endpoint) in [(&mut one, "a"), (&mut two, "b")] {
        let number = if endpoint == "a" { 101 } else { 102 };
        let at = format!("192.0.2.{number}");
        host.shell(&format!("ip addr add {at}/24 dev eth0"));
        host.stop();
        host.options["advertise"] = json!(at);
        host.start();
        let live = Reconcile {
            live: vec!["n".into()],
            endpoints: vec![endpoint.into()],
        };
        host.with(|driver| driver.reconcile(&call(), live)).unwrap();
    }
    let there = |host: &Host<'_>, of: &str| host.shell("ip -d link show type vxlan").contains(of);
    assert!(there(&one, "local 192.0.2.101 ") && there(&two, "local 192.0.2.102 "));
    a.reaches(&b);
    b.reaches(&a);
    let mut wish = network_of("m");
    wish.options
        .insert(crate::options::VNI.into(), "5000".into());
    one.share(wish.clone()).unwrap();
    one.create("m");
    one.delete_network("m");
    let network = NetworkRef { id: "m".into() };
    one.with(|driver| driver.unshare(&call(), network)).unwrap();
    (wish.id, wish.name) = ("o".into(), "o".into());
    one.share(wish).unwrap();
    one.create("o");
}

/// The most bytes that an association of a host has carried.
fn carried(host: &gantry_fixtures::Host) -> u64 {
    let all = host.namespace.shell("ip -s xfrm state");
    let counts = all.lines().filter_map(|line| {
        let (count, _) = line.trim().split_once("(bytes), ")?;
        count.parse().ok()
    });
    counts.max().unwrap_or(0)
}

/// Where the kernel cannot, it is refused; `tests/vm.sh` runs this with one that can.
#[test]
fn encrypted_networks_go_encrypted() {
    let (hosts, _etcd) = lab();
    let [one, two] = two(&hosts, &json!({}));
    let mut wish = network_of("n");
    wish.options.insert("encrypted".into(), String::new());
    if let Err(lacking) = one.with(|_| secure::check()) {
        assert!(std::env::var_os("GANTRY_TEST_ESP").is_none(), "{lacking}");
        let refused = one.share(wish).unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotImplemented);
        assert_eq!(refused, lacking);
        return;
    }
    one.share(wish).unwrap();
    one.create("n");
    two.create("n");
    let (a, b) = (one.sandbox("n", "a"), two.sandbox("n", "b"));
    assert_eq!(a.plan.mtu, 1410);
    a.reaches(&b);
    b.reaches(&a);
    assert!(carried(hosts.host(1)) > 1 << 20 && carried(hosts.host(2)) > 1 << 20);
    // What comes in clear is dropped.
    let at = format!("{}:4790", two.address());
    let stranger = hosts
        .host(3)
        .namespace
        .enter(|| UdpSocket::bind("0.0.0.0:0"));
    stranger.unwrap().send_to(b"clear", at).unwrap();
    let dropped = "grep XfrmInTmplMismatch /proc/net/xfrm_stat | grep -vw 0";
    eventually("it is dropped", || {
        hosts.host(2).namespace.try_shell(dropped).is_ok()
    });
    // Keys that were lost are drawn anew, and those of the others accepted again.
    hosts.host(2).namespace.shell("ip xfrm state flush");
    a.reaches(&b);
    b.reaches(&a);
    assert!(carried(hosts.host(2)) > 1 << 20);
}

#[test]
fn ports_are_published_and_internal_networks_lead_nowhere() {
    let (hosts, _etcd) = lab();
    let host = Host::new(hosts.host(1), &json!({}));
    let mut wish = network_of("n");
    wish.internal = true;
    wish.options
        .insert(gantry_plugin_sdk::links::MTU.into(), "1300".into());
    host.share(wish).unwrap();
    let network = host.create("n");
    let plan = host
        .with(|driver| driver.create_network(&call(), spec_of(&network)))
        .unwrap();
    let FirewallIntent::Bridge {
        link,
        internal,
        masquerade,
        ..
    } = &plan.firewall[0]
    else {
        panic!("{plan:?}");
    };
    assert!(*internal && !*masquerade);
    let a = host.sandbox("n", "a");
    assert!(a.plan.gateways.is_empty());
    assert_eq!(a.plan.mtu, 1300);
    let lease = |host: &str| PortLease {
        protocol: Protocol::Tcp,
        host: host.parse().unwrap(),
        container_port: 80,
    };
    let request = SetExternal {
        endpoint: endpoint_of("n", "a", a.plan.addresses.clone()),
        ports: vec![lease("0.0.0.0:8080"), lease("[::]:8080")],
    };
    let intents = host
        .with(|driver| driver.set_external(&call(), request))
        .unwrap();
    let wanted =
        [("0.0.0.0:8080", false), ("[::]:8080", true)].map(|(at, v6)| FirewallIntent::Publish {
            protocol: Protocol::Tcp,
            host: at.parse().unwrap(),
            target: (a.address(v6), 80).into(),
            link: link.clone(),
        });
    assert_eq!(intents, wanted);
    let leave = |driver: &OverlayNetwork| {
        let endpoint = EndpointRef {
            network: "n".into(),
            id: "a".into(),
        };
        driver.leave(&call().with_fds(&[a.netns.as_fd()]), endpoint)
    };
    host.with(leave).unwrap();
    host.with(leave).unwrap();
    let live = Reconcile::default();
    host.with(|driver| driver.reconcile(&call(), live)).unwrap();
    eventually("no link is left", || host.links().is_empty());
}
