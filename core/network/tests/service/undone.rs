//! Attachments that are not made, or taken away, as a whole.

use std::fs;
use std::path::PathBuf;

use gantry_network::*;
use gantry_plugin_sdk::serde_json::{Value, from_str};
use gantry_sys::netlink::RouteSocket;
use gantry_sys::netns;

use super::ip;
use super::rig::*;

/// A container that serves the host's port 8080, on the default network and on one that has its default route.
fn on_two(rig: &mut Rig) -> Container {
    rig.network("aside", |n| n.ipam.pools = vec![pool("10.9.0.0/24")])
        .unwrap();
    let (a, _) = rig.container("a", "bridge");
    serve(&a.netns, 80);
    rig.publish(&a, 8080, 80).unwrap();
    attach(rig, &a);
    a
}

fn pool(subnet: &str) -> IpamPool {
    IpamPool {
        subnet: Some(subnet.parse().unwrap()),
        ..IpamPool::default()
    }
}

fn attach(rig: &Rig, container: &Container) {
    take_address(rig, container);
    assert_eq!(links_of(container), ["eth0", "eth1", "lo"]);
    assert_eq!(default_link(container), "eth1");
    reached(rig);
}

fn links_of(container: &Container) -> Vec<String> {
    let mut names = netns::inside(&container.netns, || Ok(links())).unwrap();
    names.sort();
    names
}

/// The link that a container's default route leads over.
fn default_link(container: &Container) -> String {
    netns::inside(&container.netns, || {
        let mut socket = RouteSocket::open()?;
        let routes = socket.routes()?;
        let default = routes.iter().find(|r| r.to.prefix_len() == 0);
        let index = default.map(|route| route.link);
        let link = socket.links()?.into_iter().find(|l| Some(l.index) == index);
        Ok(link.map(|link| link.name).unwrap_or_default())
    })
    .unwrap()
}

/// Waits until the port is reached: a container that ends may answer a moment longer at the address that it had.
#[track_caller]
fn reached(rig: &Rig) {
    at_last(|| ask_from(&rig.world, &format!("{HOST}:8080")).ok());
}

fn detach(rig: &Rig, container: &Container) -> Result<()> {
    rig.block(rig.service.disconnect(&container.id, "aside"))
}

fn networks(rig: &Rig, container: &Container) -> Vec<String> {
    let endpoints = rig.service.endpoints(&container.id);
    endpoints.into_iter().map(|e| e.network_name).collect()
}

/// Checks that nothing is left of the attachment, and that another can have the address.
#[track_caller]
fn gone(rig: &mut Rig, container: &Container) {
    for again in [false, true] {
        if again {
            rig.restart(&[container]);
        }
        assert_eq!(networks(rig, container), ["bridge"]);
        assert_eq!(links_of(container), ["eth0", "lo"]);
        assert_eq!(default_link(container), "eth0");
        let (b, _) = rig.container("b", "bridge");
        take_address(rig, &b);
        rig.end(b);
    }
}

/// Attaches a container by the address that is wished of each.
fn take_address(rig: &Rig, container: &Container) {
    let config = EndpointConfig {
        ipv4: ip("10.9.0.9"),
        ..EndpointConfig::default()
    };
    rig.connect(container, "aside", config).unwrap();
}

fn hosts(container: &Container) -> String {
    fs::read_to_string(&container.files.hosts).unwrap()
}

#[test]
fn hosts_that_cannot_be_written_keep_nothing_else_of_an_attachment() {
    Rig::run(None, |rig| {
        let a = on_two(rig);
        let aside = a.files.hosts.with_extension("aside");
        fs::rename(&a.files.hosts, &aside).unwrap();
        fs::create_dir(&a.files.hosts).unwrap();
        let error = detach(rig, &a).unwrap_err();
        assert!(error.message.contains("Is a directory"), "{error}");
        reached(rig);
        gone(rig, &a);
        fs::remove_dir(&a.files.hosts).unwrap();
        fs::rename(&aside, &a.files.hosts).unwrap();
        rig.end(a);
    });
}

#[test]
fn ports_that_cannot_be_moved_keep_nothing_else_of_an_attachment() {
    Rig::run(None, |rig| {
        let a = on_two(rig);
        assert!(hosts(&a).contains("10.9.0.9"));
        rig.refused.add("set_external");
        let error = detach(rig, &a).unwrap_err();
        assert!(error.message.contains("set_external is refused"), "{error}");
        rig.refused.clear();
        assert!(!hosts(&a).contains("10.9.0.9"));
        gone(rig, &a);
        // They are moved with the next change.
        attach(rig, &a);
        detach(rig, &a).unwrap();
        reached(rig);
        rig.end(a);
    });
}

#[test]
fn what_cannot_be_written_down_is_not_begun() {
    Rig::run(None, |rig| {
        let a = on_two(rig);
        let notes = rig.dir.path().join("run/network/sandboxes");
        let aside = notes.with_extension("aside");
        fs::rename(&notes, &aside).unwrap();
        let error = detach(rig, &a).unwrap_err();
        assert!(error.message.contains("No such file"), "{error}");
        assert_eq!(networks(rig, &a), ["bridge", "aside"]);
        assert_eq!(links_of(&a), ["eth0", "eth1", "lo"]);
        reached(rig);
        fs::rename(&aside, &notes).unwrap();
        // Nor is it with what is written down next.
        rig.publish(&a, 8081, 81).unwrap();
        assert!(!is_under_way(rig));
        detach(rig, &a).unwrap();
        fs::rename(&notes, &aside).unwrap();
        let again = rig.connect(&a, "aside", EndpointConfig::default());
        assert!(again.unwrap_err().message.contains("No such file"));
        fs::rename(&aside, &notes).unwrap();
        gone(rig, &a);
        rig.end(a);
    });
}

#[test]
fn what_was_not_made_is_not_under_way() {
    Rig::run(None, |rig| {
        let a = on_two(rig);
        detach(rig, &a).unwrap();
        rig.refused.add("join");
        let again = rig.connect(&a, "aside", EndpointConfig::default());
        assert!(again.unwrap_err().message.contains("join is refused"));
        rig.refused.clear();
        assert!(!is_under_way(rig));
        gone(rig, &a);
        rig.end(a);
    });
}

/// What is written down of the only container.
fn note(rig: &Rig) -> (PathBuf, String) {
    let notes = fs::read_dir(rig.dir.path().join("run/network/sandboxes")).unwrap();
    let [path] = &notes.map(|n| n.unwrap().path()).collect::<Vec<_>>()[..] else {
        panic!("there is one container");
    };
    (path.clone(), fs::read_to_string(path).unwrap())
}

fn is_under_way(rig: &Rig) -> bool {
    note(rig).1.contains("\"under_way\":{")
}

#[test]
fn what_was_under_way_is_taken_away_by_the_next_daemon() {
    Rig::run(None, |rig| {
        let a = on_two(rig);
        detach(rig, &a).unwrap();
        let parsed = |rig: &Rig| -> Value { from_str(&note(rig).1).unwrap() };
        let before = parsed(rig);
        for is_made in [false, true] {
            attach(rig, &a);
            // As a daemon leaves it that ends while it takes the attachment away, or makes it.
            let mut saved = parsed(rig);
            saved["under_way"] = saved["endpoints"].as_array_mut().unwrap().pop().unwrap();
            if is_made {
                assert_ne!(saved["routes"], before["routes"]);
                saved["routes"] = before["routes"].clone();
            }
            fs::write(note(rig).0, saved.to_string()).unwrap();
            rig.restart(&[&a]);
            assert!(!hosts(&a).contains("10.9.0.9"));
            reached(rig);
            gone(rig, &a);
        }
        rig.end(a);
    });
}
