//! What others do meanwhile: daemons that die, firewalls that are flushed, engines beside this one.

use gantry_network::*;
use gantry_sys::netns;

use super::rig::*;

#[test]
fn a_new_daemon_takes_over_without_a_gap() {
    Rig::run(None, |rig| {
        let one = rig.network("one", |_| {}).unwrap();
        let (a, at_a) = rig.container("a", "one");
        let (dead, _) = rig.container("dead", "one");
        serve(&a.netns, 80);
        rig.publish(&a, 8080, 80).unwrap();
        rig.publish(&dead, 8081, 80).unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let world = rig.world.try_clone().unwrap();
        let asking = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut count = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    ask_from(&world, &format!("{HOST}:8080")).unwrap();
                    count += 1;
                }
                count
            }
        });
        drop(dead.netns);
        rig.restart(&[&a]);
        rig.restart(&[&a]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(asking.join().unwrap() > 0);
        assert_eq!(rig.service.get("one").unwrap(), one);
        assert_eq!(rig.service.endpoints(&a.id), vec![at_a.clone()]);
        let error = rig.block(rig.service.remove("one")).unwrap_err();
        assert_eq!(
            error.message,
            format!(
                "error while removing network: network one id {} has active endpoints (name:\"a\" id:{:?})",
                one.id,
                at_a.endpoint.short()
            )
        );
        let (b, at_b) = rig.container("b", "one");
        assert_ne!(at_b.ipv4, at_a.ipv4);
        assert!(rig.publish(&b, 8080, 80).is_err(), "the lease is known");
        rig.publish(&b, 8081, 80).unwrap();
        rig.end(a);
        rig.end(b);
        rig.block(rig.service.remove("one")).unwrap();
    });
}

#[test]
fn a_foreign_policy_of_drop_is_passed() {
    use gantry_sys::nft::{BaseChain, Batch, Family, Hook, NftSocket};
    Rig::run(None, |rig| {
        let (a, _) = rig.container("a", "bridge");
        let mut socket = NftSocket::open().unwrap();
        let mut foreign = Batch::new(Family::Ipv4, "filter");
        foreign.add_table();
        let chain = BaseChain {
            name: "FORWARD",
            kind: "filter",
            hook: Hook::Forward,
            priority: 0,
            drop: true,
        };
        foreign.add_chain(&chain);
        socket.commit(foreign).unwrap();
        serve(&rig.world, 81);
        at_last(|| ask_from(&a.netns, &format!("{WORLD}:81")).ok());
        serve(&a.netns, 80);
        rig.publish(&a, 8080, 80).unwrap();
        ask_from(&rig.world, &format!("{HOST}:8080")).unwrap();
        rig.end(a);
        rig.block(rig.service.shutdown(true));
        assert!(
            socket
                .rules(Family::Ipv4, "filter", "FORWARD")
                .unwrap()
                .is_empty()
        );
    });
}

#[test]
fn a_flushed_rule_set_is_made_again() {
    use gantry_sys::nft::{Batch, Family, NftSocket};
    Rig::run(None, |rig| {
        let (a, _) = rig.container("a", "bridge");
        serve(&a.netns, 80);
        rig.publish(&a, 8080, 80).unwrap();
        let mut flush = Batch::new(Family::Inet, &format!("gantry-{TAG}"));
        flush.remove_table();
        NftSocket::open().unwrap().commit(flush.clone()).unwrap();
        at_last(|| ask_from(&rig.world, &format!("{HOST}:8080")).ok());
        // Even when a port is published before it was noticed.
        NftSocket::open().unwrap().commit(flush).unwrap();
        rig.publish(&a, 8081, 80).unwrap();
        ask_from(&rig.world, &format!("{HOST}:8081")).unwrap();
        rig.end(a);
    });
}

#[test]
fn many_starts_at_once_get_what_is_theirs() {
    Rig::run(None, |rig| {
        rig.network("one", |_| {}).unwrap();
        let starts = (0..24).map(|n| {
            let (service, spec) = (rig.service.clone(), rig.spec(&format!("c{n}")));
            rig.spawn(async move {
                let id = spec.container.clone();
                let sandbox = service.sandbox(spec).await.unwrap();
                let mut addresses = Vec::new();
                for network in ["bridge", "one"] {
                    let endpoint = service
                        .connect(&id, network, EndpointConfig::default())
                        .await
                        .unwrap();
                    addresses.extend(endpoint.ipv4);
                }
                let ports = service.publish(&id, vec![request(0, 80)]).await.unwrap();
                (id, sandbox, addresses, ports[0].host_port)
            })
        });
        let starts: Vec<_> = starts.collect();
        let started: Vec<_> = starts
            .into_iter()
            .map(|task| rig.block(task).unwrap())
            .collect();
        let addresses: std::collections::HashSet<_> = started.iter().flat_map(|s| &s.2).collect();
        let ports: std::collections::HashSet<_> = started.iter().map(|s| s.3).collect();
        assert_eq!((addresses.len(), ports.len()), (48, 24));
        let ends = started.into_iter().map(|(id, sandbox, ..)| {
            let service = rig.service.clone();
            drop(sandbox);
            rig.spawn(async move { service.release(&id).await.unwrap() })
        });
        let ends: Vec<_> = ends.collect();
        ends.into_iter().for_each(|task| rig.block(task).unwrap());
        rig.block(rig.service.remove("one")).unwrap();
    });
}

#[test]
fn engines_that_start_together_choose_different_subnets() {
    Rig::run(None, |rig| {
        let here = netns::current().unwrap();
        let open = |tag: &'static str| {
            let (dir, here) = (rig.dir.path().join(tag), here.try_clone().unwrap());
            std::thread::spawn(move || netns::inside(&here, || Ok(another(&dir, tag))).unwrap())
        };
        let others: Vec<_> = ["aaaaaaaa", "bbbbbbbb", "cccccccc"].map(open).into();
        let others: Vec<Other> = others.into_iter().map(|o| o.join().unwrap()).collect();
        let subnet = |s: &NetworkService| s.get("bridge").unwrap().ipam.pools[0].subnet.unwrap();
        let mut subnets: Vec<_> = others.iter().map(|o| subnet(&o.service)).collect();
        subnets.push(subnet(&rig.service));
        subnets.sort();
        subnets.dedup();
        assert_eq!(subnets.len(), 4);
        others.into_iter().for_each(Other::end);
    });
}
