//! Two hosts.

use std::collections::HashSet;
use std::net::{TcpListener, TcpStream};

use gantry_e2e::eventually;
use serde_json::Value;

use crate::lab::{Cluster, Talk, datagram};

#[test]
fn a_network_and_its_names_span_hosts() {
    let cluster = Cluster::new(2, 1);
    cluster.network(
        1,
        "--attachable --label k=v --ipv6 --subnet 10.9.0.0/24 net",
    );
    let inspect = |host: u8| -> Value {
        let text = cluster.docker(host, "network inspect net");
        serde_json::from_str::<Value>(&text).unwrap()[0].take()
    };
    let (a, b) = (inspect(1), inspect(2));
    assert_eq!(a, b, "it is the same everywhere");
    assert_eq!(
        (&a["Driver"], &a["Scope"], &a["Attachable"]),
        (&"overlay".into(), &"global".into(), &true.into())
    );
    assert_eq!(a["IPAM"]["Config"][0]["Subnet"], "10.9.0.0/24");
    assert_eq!(a["Labels"]["k"], "v");
    let listed = cluster.docker(2, "network ls --filter scope=global --format {{.Name}}");
    assert_eq!(listed, "net");
    let (status, reply) = cluster
        .at(1)
        .api("GET", "/gantry/drivers/network/overlay", None);
    let told: Value = serde_json::from_str(&reply).expect("JSON");
    let facts = told["Status"].as_array().expect("what it tells of itself");
    for fact in [
        ["Member", "yes"],
        ["Networks", "1"],
        ["Hosts", "2 (0 away)"],
    ] {
        assert!(
            facts.contains(&serde_json::json!(fact)),
            "{status}: {reply}"
        );
    }
    let (status, _) = cluster
        .at(1)
        .api("GET", "/gantry/drivers/network/none-such", None);
    assert_eq!(status, 404);
    let events = |host: u8| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let until = format!("{:.9}", now.expect("after 1970").as_secs_f64());
        let format =
            "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}";
        let args = [
            "events",
            "--since",
            "1",
            "--until",
            &until,
            "--filter",
            "network=net",
        ];
        let told = cluster
            .at(host)
            .docker(&[&args[..], &["--format", format]].concat());
        let told = told.ok();
        let of_networks = ["create", "destroy"];
        let lines = told.lines().map(str::to_owned);
        let lines = lines.filter(|line| of_networks.iter().any(|action| line.starts_with(action)));
        lines.collect::<Vec<_>>()
    };
    let id = a["Id"].as_str().expect("an ID");
    let created = format!("create {id} net overlay");
    for host in 1..=2 {
        assert_eq!(events(host), [created.as_str()], "host {host}");
    }
    cluster
        .at(2)
        .docker(&["network", "create", "-d", "overlay", "net"])
        .fails(1, "network with name net already exists");
    cluster.web(
        1,
        "--name web --hostname web --network net --network-alias pair -p 8080:80",
    );
    cluster.web(
        2,
        "--name db --hostname db --network net --network-alias pair -p 8081:80",
    );
    let (web, db) = (
        cluster.address(1, "web", "net"),
        cluster.address(2, "db", "net"),
    );
    for (host, container, name, address) in [(1, "web", "db", db), (2, "db", "web", web)] {
        cluster.comes_to_work(host, container, &format!("ping -c 1 -W 1 {name}"));
        assert!(cluster.works(host, container, &format!("ping -c 1 -W 5 {address}")));
        let page = cluster.docker(host, &format!("exec {container} wget -qO- http://{name}/"));
        assert_eq!(page, name);
        assert_eq!(
            cluster.resolve(host, container, name),
            [address.to_string()]
        );
        let reverse = cluster.docker(host, &format!("exec {container} nslookup {address}"));
        assert!(reverse.contains(&format!("{name}.net")), "{reverse}");
        assert!(cluster.works(host, container, &format!("ping -6 -c 1 -W 5 {name}")));
        let mut both = [web.to_string(), db.to_string()];
        both.sort();
        assert_eq!(cluster.resolve(host, container, "pair"), both);
    }
    let (in_web, in_db) = (cluster.inside(1, "web"), cluster.inside(2, "db"));
    let seen = datagram(&in_web, &in_db, db);
    assert_eq!(
        seen.ip().to_string(),
        web.to_string(),
        "the sender's own address is seen"
    );
    // What goes out of the cluster has its host's address.
    let outside = &cluster.outside();
    let listener = outside
        .namespace
        .enter(|| TcpListener::bind(("0.0.0.0", 9002)));
    let listener = listener.unwrap();
    let address = (outside.address, 9002);
    let called = in_web.enter(|| TcpStream::connect(address));
    let (_, caller) = listener.accept().unwrap();
    assert_eq!(caller.ip(), cluster.hosts.host(1).address);
    drop(called);
    // A packet of the link's MTU passes in one piece, a larger one is refused at once.
    assert_eq!(
        cluster.docker(1, "exec web cat /sys/class/net/eth0/mtu"),
        "1450"
    );
    in_web.shell(&format!("ping -c 1 -W 5 -M do -s 1422 {db}"));
    assert!(
        in_web
            .try_shell(&format!("ping -c 1 -W 1 -M do -s 1423 {db}"))
            .is_err()
    );
    cluster.docker(
        2,
        "exec db dd if=/dev/urandom of=/www/noise bs=100k count=20",
    );
    let sum = cluster.docker(2, "exec db sha256sum /www/noise");
    let fetched = "exec web sh -c";
    let args = [
        crate::lab::words(fetched),
        vec!["wget -qO- http://db/noise | sha256sum"],
    ]
    .concat();
    let fetched = cluster.at(1).docker(&args).ok();
    assert_eq!(fetched.split(' ').next(), sum.split(' ').next());
    // Published ports are those of the container's host.
    let page = |host: u8, port: u16| {
        let address = cluster.hosts.host(host).address;
        let ask = format!("curl -fs -m 2 http://{address}:{port}/");
        cluster.outside().namespace.try_shell(&ask)
    };
    for (host, port, name) in [(1, 8080, "web"), (2, 8081, "db")] {
        let found = eventually("the port answers from outside", 20, || {
            page(host, port).ok()
        });
        assert_eq!(found, name);
        assert!(page(3 - host, port).is_err());
    }
    let peers = inspect(1)["Peers"].clone();
    let there = cluster.hosts.host(2).address.to_string();
    assert_eq!(peers[0]["IP"], there, "{peers}");
    // A renamed container is found under its new name.
    cluster.docker(2, "rename db store");
    cluster.comes_to_work(1, "web", "ping -c 1 -W 1 store");
    // A namespace that is held here keeps its links.
    drop((in_web, in_db));
    // It is removed everywhere, as soon as nobody is on it anywhere.
    let endpoint = |host: u8, container: &str| {
        let format = "{{(index .NetworkSettings.Networks \"net\").EndpointID}}";
        let args = ["inspect", "-f", format, container];
        cluster.at(host).docker(&args).ok()[..12].to_owned()
    };
    let (here, far) = (endpoint(1, "web"), endpoint(2, "store"));
    let far = format!(
        "name:\"store\" id:{far:?} host:{:?} address:{there:?})",
        rustix::system::uname().nodename().to_string_lossy()
    );
    let refused = format!("error while removing network: network net id {id} has active endpoints");
    let refuse = |who: &str| {
        let remove = cluster.at(1).docker(&["network", "rm", "net"]);
        remove.fails(1, &format!("{refused} ({who}"));
    };
    refuse(&format!("name:\"web\" id:{here:?}, {far}"));
    cluster.docker(1, "rm -f web");
    refuse(&far);
    cluster.docker(2, "rm -f store");
    cluster.docker(1, "network rm net");
    eventually("the other host forgets it", 20, || {
        let found = cluster.at(2).docker(&["network", "inspect", "net"]);
        (found.code != 0).then_some(())
    });
    let destroyed = format!("destroy {id} net overlay");
    for host in 1..=2 {
        assert_eq!(
            events(host),
            [created.as_str(), destroyed.as_str()],
            "host {host}"
        );
    }
    cluster.finish();
}

#[test]
fn addresses_never_conflict_and_the_network_is_joined_by_hand() {
    let cluster = Cluster::new(2, 1);
    // Without --attachable as well: there is no swarm whose services it could be kept for.
    cluster.network(2, "net");
    let runs: Vec<_> = (0..6).flat_map(|n| [(1, n), (2, n)]).collect();
    std::thread::scope(|scope| {
        for (host, n) in &runs {
            let cluster = &cluster;
            scope.spawn(move || {
                let args = format!("run -d --name c{n} --network net busybox sleep 1000");
                cluster.docker(*host, &args);
            });
        }
    });
    let addresses: HashSet<_> = runs
        .iter()
        .map(|(host, n)| cluster.address(*host, &format!("c{n}"), "net"))
        .collect();
    assert_eq!(addresses.len(), runs.len());
    let format = "{{(index .IPAM.Config 0).Subnet}}";
    let args = ["network", "inspect", "-f", format, "net"];
    let subnet = cluster.at(1).docker(&args).ok();
    assert!(subnet.ends_with("/24"), "{subnet}");
    // The address of a container on the other host is not to be had here.
    let taken = cluster.address(2, "c1", "net").to_string();
    cluster
        .at(1)
        .docker(&[
            "run",
            "--rm",
            "--network",
            "net",
            "--ip",
            &taken,
            "busybox",
            "true",
        ])
        .fails(125, "Address already in use");
    let free = subnet.replace(".0/24", ".200");
    let args = ["run", "-d", "--name", "late", "busybox", "sleep", "1000"];
    cluster.at(1).docker(&args).ok();
    cluster.docker(1, &format!("network connect --ip {free} net late"));
    assert_eq!(cluster.address(1, "late", "net").to_string(), free);
    cluster.comes_to_work(2, "c0", "ping -c 1 -W 1 late");
    cluster.docker(1, "network disconnect net late");
    eventually("its name goes with it", 20, || {
        cluster.resolve(2, "c0", "late").is_empty().then_some(())
    });
    // Everything that is left is taken off by the end of the engines.
    cluster.finish();
}

#[test]
fn a_shared_network_that_a_local_one_hides_is_had_by_its_id() {
    let cluster = Cluster::new(2, 1);
    let local = cluster.docker(1, "network create net");
    let shared = cluster.docker(2, "network create -d overlay net");
    eventually("the first host knows it", 20, || {
        let found = cluster.at(1).docker(&["network", "inspect", &shared]);
        (found.code == 0).then_some(())
    });
    cluster.web(2, "--name far --hostname far --network net");
    cluster.web(1, "--name near --hostname near");
    cluster.docker(1, &format!("network connect {shared} near"));
    cluster.web(
        1,
        &format!("--name made --hostname made --network {shared}"),
    );
    cluster.web(1, "--name other --network net");
    let on = |container: &str| {
        let format = "{{(index .NetworkSettings.Networks \"net\").NetworkID}}";
        let args = ["inspect", "-f", format, container];
        cluster.at(1).docker(&args).ok()
    };
    for again in [false, true] {
        if again {
            cluster.docker(1, "restart -t 0 near made other");
        }
        assert_eq!((on("near"), on("made")), (shared.clone(), shared.clone()));
        assert_eq!(on("other"), local);
        cluster.comes_to_work(1, "near", "wget -qO- http://far/");
        cluster.comes_to_work(1, "made", "wget -qO- http://far/");
    }
    cluster.docker(1, "stop -t 0 near");
    assert_eq!(on("near"), shared);
    cluster
        .at(1)
        .docker(&["network", "disconnect", &local, "near"])
        .fails(1, "is not connected to network net");
    cluster.docker(1, &format!("network disconnect {shared} near"));
    cluster.docker(1, "start near");
    assert!(!cluster.works(1, "near", "timeout 2 wget -qO- http://far/"));
    cluster.finish();
}

#[test]
fn a_killed_daemon_costs_no_connection_and_no_lookup() {
    let mut cluster = Cluster::new(2, 1);
    cluster.network(1, "net");
    cluster.web(1, "--name one --hostname one --network net");
    cluster.web(2, "--name two --hostname two --network net");
    cluster.comes_to_work(1, "one", "wget -qO- http://two/");
    cluster.comes_to_work(2, "two", "wget -qO- http://one/");
    let looking = "while timeout 5 wget -qO /dev/null http://two/ || { echo lost; false; }; do echo found; done";
    let args = [
        "exec",
        "-d",
        "one",
        "sh",
        "-c",
        &format!("({looking}) > /looks"),
    ];
    cluster.at(1).docker(&args).ok();
    let (in_one, in_two) = (cluster.inside(1, "one"), cluster.inside(2, "two"));
    let talk = Talk::begin(&in_two, &in_one, cluster.address(1, "one", "net"));
    cluster.at_mut(1).kill9();
    talk.goes_on();
    // Somebody new on the other host, found once there is a daemon again.
    cluster.web(2, "--name three --hostname three --network net");
    talk.goes_on();
    cluster.at_mut(1).boot();
    cluster.comes_to_work(1, "one", "ping -c 1 -W 1 three");
    cluster.web(1, "--name four --hostname four --network net");
    cluster.comes_to_work(2, "three", "wget -qO- http://four/");
    talk.end();
    drop((in_one, in_two));
    let looks = cluster.docker(1, "exec one cat /looks");
    assert!(looks.lines().count() > 10, "{looks}");
    assert!(!looks.contains("lost"), "{looks}");
    // What the next daemon took over is given back like all else.
    cluster.docker(1, "rm -f one four");
    cluster.docker(2, "rm -f two three");
    cluster.docker(1, "network rm net");
    cluster.finish();
}

#[test]
fn a_slow_link_is_as_good_as_any() {
    let mut cluster = Cluster::new(2, 1);
    cluster
        .hosts
        .delay(2, Some(std::time::Duration::from_millis(40)));
    cluster.network(2, "net");
    cluster.web(2, "--name far --hostname far --network net");
    cluster.web(1, "--name near --hostname near --network net");
    cluster.comes_to_work(1, "near", "wget -qO- http://far/");
    cluster.comes_to_work(2, "far", "wget -qO- http://near/");
    let (in_near, far) = (cluster.inside(1, "near"), cluster.address(2, "far", "net"));
    let times = in_near.shell(&format!("ping -c 1 -W 5 {far} | grep -o 'time=[0-9]*'"));
    let time: u64 = times.trim_start_matches("time=").parse().unwrap();
    assert!(time >= 80, "{times}: the frames do go the slow way");
    drop(in_near);
    cluster.finish();
}

#[test]
fn a_host_that_boots_without_the_store_has_its_containers_back_when_it_answers() {
    let mut cluster = Cluster::new(2, 1);
    cluster.network(1, "net");
    cluster.web(1, "--name near --hostname near --network net");
    cluster.web(
        2,
        "--name far --hostname far --network net --restart always",
    );
    cluster.comes_to_work(1, "near", "wget -qO- http://far/");
    // The daemon alone is new, and the store away: nothing changes for who is there.
    cluster.hosts.cut(2);
    cluster.at_mut(2).kill9();
    cluster.at_mut(2).boot();
    assert!(cluster.works(2, "far", "wget -qO- http://far/"));
    let near = cluster.address(1, "near", "net").to_string();
    assert_eq!(cluster.resolve(2, "far", "near"), [near]);
    cluster.hosts.heal(2);
    cluster.comes_to_work(2, "far", "timeout 2 wget -qO- http://near/");
    cluster.comes_to_work(1, "near", "timeout 2 wget -qO- http://far/");
    // The whole host is new.
    cluster.hosts.cut(2);
    cluster
        .at_mut(2)
        .reboot("11111111-2222-3333-4444-555555555555");
    let state = ["inspect", "-f", "{{.State.Status}}", "far"];
    let known = cluster.docker(2, "network inspect -f {{.Scope}} net");
    assert_eq!(known, "global");
    assert_eq!(cluster.at(2).docker(&state).ok(), "restarting");
    cluster.hosts.heal(2);
    eventually("the container is started again", 60, || {
        (cluster.at(2).docker(&state).ok() == "running").then_some(())
    });
    cluster.comes_to_work(1, "near", "timeout 2 wget -qO- http://far/");
    cluster.comes_to_work(2, "far", "timeout 2 wget -qO- http://near/");
    cluster.finish();
}
