//! What is promised of a network driver. Runs in a network namespace of its own (see [`run`](crate::run)).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_driver_api::network::{
    EndpointRef, EndpointSpec, FirewallIntent, JoinPlan, NetworkRef, NetworkSpec, PortLease,
    Protocol, Scope, SetExternal, SharedEndpoint, SharedNetwork, SharedPool, Subnet, Watch,
};
use gantry_driver_api::{ErrorCode, Network, Reconcile};
use gantry_sys::netlink::RouteSocket;
use gantry_sys::netns;

use crate::Subject;
use crate::report::{Problem, Report, expect, refused, skip};
use crate::subject::call;

const NETWORK: &str = "aaaa000000000000000000000000000000000000000000000000000000000001";
const ENDPOINT: &str = "eeee000000000000000000000000000000000000000000000000000000000001";
const ABSENT: &str = "ffff000000000000000000000000000000000000000000000000000000000001";

struct Driver {
    driver: Arc<dyn Network>,
    /// The links that were there before.
    before: Vec<String>,
}

impl Driver {
    fn of(subject: &Subject, before: &[String]) -> Result<Self, Problem> {
        let driver = subject.network();
        Ok(Self {
            driver: driver.map_err(|e| Problem::Failed(e.to_string()))?,
            before: before.to_vec(),
        })
    }

    /// Whether other hosts share its networks.
    fn global(&self) -> Result<bool, Problem> {
        Ok(self.driver.info(&call(), ())?.scope == Scope::Global)
    }

    /// What it makes of a network that every host is told of: options for `create_network`.
    fn share(&self) -> Result<BTreeMap<String, String>, Problem> {
        let wish = SharedNetwork {
            id: NETWORK.into(),
            name: "verify".into(),
            created: "2026-01-01T00:00:00Z".into(),
            internal: false,
            attachable: true,
            enable_ipv4: true,
            enable_ipv6: false,
            pools: vec![SharedPool {
                subnet: Some(address(0).trunc()),
                gateway: Some(address(1).addr()),
                ..SharedPool::default()
            }],
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
        };
        Ok(self.driver.share(&call(), wish)?.options)
    }

    fn allocate(&self, endpoint: EndpointSpec) -> Result<Vec<ipnet::IpNet>, Problem> {
        let wish = SharedEndpoint {
            endpoint,
            names: vec!["verify".into()],
        };
        Ok(self.driver.allocate(&call(), wish)?)
    }

    fn addressed(&self) -> Result<bool, Problem> {
        Ok(self.driver.info(&call(), ())?.addressed)
    }

    fn network(&self) -> Result<NetworkSpec, Problem> {
        let subnet = Subnet {
            net: address(0).trunc(),
            gateway: Some(address(1).addr()),
        };
        Ok(NetworkSpec {
            id: NETWORK.into(),
            name: "verify".into(),
            subnets: if self.addressed()? {
                vec![subnet]
            } else {
                Vec::new()
            },
            internal: false,
            options: match self.global()? {
                true => self.share()?,
                false => BTreeMap::new(),
            },
        })
    }

    fn endpoint(&self) -> Result<EndpointSpec, Problem> {
        let mut endpoint = EndpointSpec {
            network: NETWORK.into(),
            id: ENDPOINT.into(),
            addresses: if self.addressed()? {
                vec![address(2)]
            } else {
                Vec::new()
            },
            mac: None,
            link: "eth0".into(),
            options: Default::default(),
        };
        if self.global()? {
            endpoint.addresses = self.allocate(endpoint.clone())?;
        }
        Ok(endpoint)
    }

    /// A network with an endpoint that has joined a new sandbox.
    fn joined(&self) -> Result<(OwnedFd, JoinPlan), Problem> {
        let (sandbox, ()) = netns::create(|| Ok(()))?;
        self.driver.create_network(&call(), self.network()?)?;
        self.driver.create_endpoint(&call(), self.endpoint()?)?;
        let fds = [sandbox.as_fd()];
        let plan = self.driver.join(&call().with_fds(&fds), self.endpoint()?)?;
        Ok((sandbox, plan))
    }

    fn remove(&self) -> Result<(), Problem> {
        self.driver
            .delete_endpoint(&call(), endpoint_ref(ENDPOINT))?;
        let network = NetworkRef { id: NETWORK.into() };
        self.driver.delete_network(&call(), network.clone())?;
        if self.global()? {
            self.driver.unshare(&call(), network)?;
        }
        Ok(())
    }

    /// Fails unless nothing is left that was not there before: a driver may remove links in its own time, but soon.
    fn expect_clean(&self) -> Result<(), Problem> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let left = links()?;
            if left == self.before {
                return Ok(());
            }
            expect(Instant::now() < end, || format!("left are {left:?}"))?;
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn address(last: u8) -> ipnet::IpNet {
    let ip = IpAddr::V4(Ipv4Addr::new(10, 213, 7, last));
    ipnet::IpNet::new_assert(ip, 24)
}

fn endpoint_ref(id: &str) -> EndpointRef {
    EndpointRef {
        network: NETWORK.into(),
        id: id.into(),
    }
}

/// The links of the namespace that the suite runs in.
fn links() -> Result<Vec<String>, Problem> {
    let mut names: Vec<_> = RouteSocket::open()?
        .links()?
        .into_iter()
        .map(|l| l.name)
        .collect();
    names.sort();
    Ok(names)
}

pub(crate) fn verify(subject: &Subject, report: &mut Report) {
    type Run = fn(&Driver) -> Result<(), Problem>;
    let checks: &[(&str, Run)] = &[
        ("info is constant", constant),
        (
            "a plain network is valid, made twice is made once, and leaves no link behind",
            network,
        ),
        (
            "join needs the sandbox's namespace, where there is one",
            no_namespace,
        ),
        (
            "join makes the link that its plan names, inside the sandbox",
            join,
        ),
        ("leave works when the sandbox has vanished", vanished),
        (
            "an end on the host goes although the sandbox stays",
            outlived,
        ),
        ("published ports become intents of the same ports", publish),
        ("removing what is absent succeeds", absent),
        (
            "networks and addresses of several hosts are given once",
            sharing,
        ),
    ];
    let before = links().unwrap_or_default();
    for &(promise, run) in checks {
        report.check(promise, || run(&Driver::of(subject, &before)?));
    }
    report.check(
        "an endpoint can leave and be removed after a restart",
        || restart(subject, &before),
    );
}

fn constant(driver: &Driver) -> Result<(), Problem> {
    let (a, b) = (
        driver.driver.info(&call(), ())?,
        driver.driver.info(&call(), ())?,
    );
    expect(a == b, || format!("{a:?}, then {b:?}"))
}

fn network(driver: &Driver) -> Result<(), Problem> {
    driver.driver.validate(&call(), driver.network()?)?;
    let first = driver.driver.create_network(&call(), driver.network()?)?;
    let second = driver.driver.create_network(&call(), driver.network()?)?;
    expect(first == second, || format!("{first:?}, then {second:?}"))?;
    driver.driver.create_endpoint(&call(), driver.endpoint()?)?;
    driver.driver.create_endpoint(&call(), driver.endpoint()?)?;
    driver.remove()?;
    driver.expect_clean()
}

fn no_namespace(driver: &Driver) -> Result<(), Problem> {
    if !driver.addressed()? {
        return skip("it makes no links");
    }
    driver.driver.create_network(&call(), driver.network()?)?;
    driver.driver.create_endpoint(&call(), driver.endpoint()?)?;
    refused(
        driver.driver.join(&call(), driver.endpoint()?),
        ErrorCode::InvalidArgument,
    )?;
    driver.remove()
}

fn join(driver: &Driver) -> Result<(), Problem> {
    let (sandbox, plan) = driver.joined()?;
    let fds = [sandbox.as_fd()];
    let inside = netns::inside(sandbox.as_fd(), || RouteSocket::open()?.links())?;
    let found = inside.iter().find(|link| link.name == plan.link);
    expect(plan.link.is_empty() || found.is_some(), || {
        format!("{plan:?} but {inside:?}")
    })?;
    if driver.addressed()? {
        expect(!plan.link.is_empty(), || {
            "it is addressed and has no link".into()
        })?;
        // The prefix is the driver's: alone on its link, a container has none but its own address.
        let given: Vec<IpAddr> = plan.addresses.iter().map(|net| net.addr()).collect();
        expect(given == [address(2).addr()], || {
            format!("{:?}", plan.addresses)
        })?;
        let mac = found.and_then(|link| link.mac).map(|mac| mac.to_string());
        expect(mac.as_deref() == Some(plan.mac.as_str()), || {
            format!("{} but {mac:?}", plan.mac)
        })?;
    }
    for _ in 0..2 {
        driver
            .driver
            .leave(&call().with_fds(&fds), endpoint_ref(ENDPOINT))?;
    }
    let left = netns::inside(sandbox.as_fd(), || RouteSocket::open()?.links())?;
    expect(
        left.iter()
            .all(|l| l.name != plan.link || plan.link.is_empty()),
        || format!("left is {left:?}"),
    )?;
    driver.remove()?;
    driver.expect_clean()
}

fn vanished(driver: &Driver) -> Result<(), Problem> {
    let (sandbox, _) = driver.joined()?;
    drop(sandbox);
    driver.driver.leave(&call(), endpoint_ref(ENDPOINT))?;
    driver.remove()?;
    driver.expect_clean()
}

fn outlived(driver: &Driver) -> Result<(), Problem> {
    let (sandbox, plan) = driver.joined()?;
    let has_end = !plan.outer.is_empty();
    if has_end {
        driver.driver.leave(&call(), endpoint_ref(ENDPOINT))?;
        let end = Instant::now() + Duration::from_secs(10);
        while links()?.contains(&plan.outer) {
            expect(Instant::now() < end, || format!("left is {}", plan.outer))?;
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    drop(sandbox);
    driver.driver.leave(&call(), endpoint_ref(ENDPOINT))?;
    driver.remove()?;
    driver.expect_clean()?;
    match has_end {
        true => Ok(()),
        false => skip("its links have no end on a bridge of the host"),
    }
}

fn publish(driver: &Driver) -> Result<(), Problem> {
    if !driver.addressed()? {
        return skip("it has no addresses to publish");
    }
    let (sandbox, _) = driver.joined()?;
    let host = SocketAddr::from(([0, 0, 0, 0], 8080));
    let lease = PortLease {
        protocol: Protocol::Tcp,
        host,
        container_port: 80,
    };
    let request = SetExternal {
        endpoint: driver.endpoint()?,
        ports: vec![lease],
    };
    let intents = driver.driver.set_external(&call(), request)?;
    let published = intents.iter().any(|intent| {
        matches!(intent, FirewallIntent::Publish { protocol: Protocol::Tcp, host: h, target, .. }
            if *h == host && *target == SocketAddr::new(address(2).addr(), 80))
    });
    expect(published, || format!("{intents:?}"))?;
    let request = SetExternal {
        endpoint: driver.endpoint()?,
        ports: Vec::new(),
    };
    let intents = driver.driver.set_external(&call(), request)?;
    expect(intents.is_empty(), || {
        format!("nothing published gives {intents:?}")
    })?;
    drop(sandbox);
    driver.driver.leave(&call(), endpoint_ref(ENDPOINT))?;
    driver.remove()?;
    driver.expect_clean()
}

fn absent(driver: &Driver) -> Result<(), Problem> {
    driver.driver.leave(&call(), endpoint_ref(ABSENT))?;
    driver
        .driver
        .delete_endpoint(&call(), endpoint_ref(ABSENT))?;
    let network = NetworkRef { id: ABSENT.into() };
    driver.driver.delete_network(&call(), network.clone())?;
    if driver.global()? {
        driver.driver.unshare(&call(), network)?;
    }
    Ok(())
}

fn sharing(driver: &Driver) -> Result<(), Problem> {
    if !driver.global()? {
        return skip("its networks are this host's");
    }
    let first = driver.share()?;
    let second = driver.share()?;
    expect(first == second, || format!("{first:?}, then {second:?}"))?;
    let known = driver.driver.shared(&call(), Watch::default())?;
    expect(known.revision != 0, || "the revision is 0".into())?;
    driver.driver.create_network(&call(), driver.network()?)?;
    let endpoint = driver.endpoint()?;
    let again = driver.allocate(endpoint.clone())?;
    expect(again == endpoint.addresses, || {
        format!("{again:?}, but {:?}", endpoint.addresses)
    })?;
    let other = EndpointSpec {
        id: ABSENT.into(),
        addresses: vec![address(2).addr().into()],
        ..endpoint
    };
    let wish = SharedEndpoint {
        endpoint: other,
        names: Vec::new(),
    };
    refused(driver.driver.allocate(&call(), wish), ErrorCode::Conflict)?;
    let network = NetworkRef { id: NETWORK.into() };
    refused(
        driver.driver.unshare(&call(), network),
        ErrorCode::FailedPrecondition,
    )?;
    let members = driver.driver.members(&call(), Watch::default())?.members;
    expect(members.is_empty(), || {
        format!("{members:?} are of other hosts")
    })?;
    driver.remove()?;
    driver.expect_clean()
}

fn restart(subject: &Subject, before: &[String]) -> Result<(), Problem> {
    let driver = Driver::of(subject, before)?;
    let (sandbox, plan) = driver.joined()?;
    drop(driver);
    subject
        .restart()
        .map_err(|e| Problem::Failed(e.to_string()))?;
    let driver = Driver::of(subject, before)?;
    let request = Reconcile {
        live: vec![NETWORK.into()],
        endpoints: vec![ENDPOINT.into()],
    };
    driver.driver.reconcile(&call(), request)?;
    driver.driver.create_network(&call(), driver.network()?)?;
    let inside = netns::inside(sandbox.as_fd(), || RouteSocket::open()?.links())?;
    let there = plan.link.is_empty() || inside.iter().any(|link| link.name == plan.link);
    expect(there, || {
        "reconcile took the link of a live endpoint".into()
    })?;
    let fds = [sandbox.as_fd()];
    driver
        .driver
        .leave(&call().with_fds(&fds), endpoint_ref(ENDPOINT))?;
    driver.remove()?;
    driver.expect_clean()
}
