//! What is promised of a network driver. Runs in a network namespace of its own (see [`run`](crate::run)).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_driver_api::network::{
    EndpointRef, EndpointSpec, FirewallIntent, JoinPlan, NetworkRef, NetworkSpec, PortLease,
    Protocol, SetExternal, Subnet,
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

struct Driver(Arc<dyn Network>);

impl Driver {
    fn of(subject: &Subject) -> Result<Self, Problem> {
        subject
            .network()
            .map(Self)
            .map_err(|e| Problem::Failed(e.to_string()))
    }

    fn addressed(&self) -> Result<bool, Problem> {
        Ok(self.0.info(&call(), ())?.addressed)
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
            options: Default::default(),
        })
    }

    fn endpoint(&self) -> Result<EndpointSpec, Problem> {
        Ok(EndpointSpec {
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
        })
    }

    /// A network with an endpoint that has joined a new sandbox.
    fn joined(&self) -> Result<(OwnedFd, JoinPlan), Problem> {
        let (sandbox, ()) = netns::create(|| Ok(()))?;
        self.0.create_network(&call(), self.network()?)?;
        self.0.create_endpoint(&call(), self.endpoint()?)?;
        let fds = [sandbox.as_fd()];
        let plan = self.0.join(&call().with_fds(&fds), self.endpoint()?)?;
        Ok((sandbox, plan))
    }

    fn remove(&self) -> Result<(), Problem> {
        self.0.delete_endpoint(&call(), endpoint_ref(ENDPOINT))?;
        let network = NetworkRef { id: NETWORK.into() };
        Ok(self.0.delete_network(&call(), network)?)
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

/// Fails unless nothing but loopback is left: a driver may remove links in its own time, but soon.
fn expect_clean() -> Result<(), Problem> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let left = links()?;
        if left == ["lo"] {
            return Ok(());
        }
        expect(Instant::now() < end, || format!("left are {left:?}"))?;
        std::thread::sleep(Duration::from_millis(2));
    }
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
        ("published ports become intents of the same ports", publish),
        ("removing what is absent succeeds", absent),
    ];
    for &(promise, run) in checks {
        report.check(promise, || run(&Driver::of(subject)?));
    }
    report.check(
        "an endpoint can leave and be removed after a restart",
        || restart(subject),
    );
}

fn constant(driver: &Driver) -> Result<(), Problem> {
    let (a, b) = (driver.0.info(&call(), ())?, driver.0.info(&call(), ())?);
    expect(a == b, || format!("{a:?}, then {b:?}"))
}

fn network(driver: &Driver) -> Result<(), Problem> {
    driver.0.validate(&call(), driver.network()?)?;
    let first = driver.0.create_network(&call(), driver.network()?)?;
    let second = driver.0.create_network(&call(), driver.network()?)?;
    expect(first == second, || format!("{first:?}, then {second:?}"))?;
    driver.0.create_endpoint(&call(), driver.endpoint()?)?;
    driver.0.create_endpoint(&call(), driver.endpoint()?)?;
    driver.remove()?;
    expect_clean()
}

fn no_namespace(driver: &Driver) -> Result<(), Problem> {
    if !driver.addressed()? {
        return skip("it makes no links");
    }
    driver.0.create_network(&call(), driver.network()?)?;
    driver.0.create_endpoint(&call(), driver.endpoint()?)?;
    refused(
        driver.0.join(&call(), driver.endpoint()?),
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
            .0
            .leave(&call().with_fds(&fds), endpoint_ref(ENDPOINT))?;
    }
    let left = netns::inside(sandbox.as_fd(), || RouteSocket::open()?.links())?;
    expect(
        left.iter()
            .all(|l| l.name != plan.link || plan.link.is_empty()),
        || format!("left is {left:?}"),
    )?;
    driver.remove()?;
    expect_clean()
}

fn vanished(driver: &Driver) -> Result<(), Problem> {
    let (sandbox, _) = driver.joined()?;
    drop(sandbox);
    driver.0.leave(&call(), endpoint_ref(ENDPOINT))?;
    driver.remove()?;
    expect_clean()
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
    let intents = driver.0.set_external(&call(), request)?;
    let published = intents.iter().any(|intent| {
        matches!(intent, FirewallIntent::Publish { protocol: Protocol::Tcp, host: h, target, .. }
            if *h == host && *target == SocketAddr::new(address(2).addr(), 80))
    });
    expect(published, || format!("{intents:?}"))?;
    let request = SetExternal {
        endpoint: driver.endpoint()?,
        ports: Vec::new(),
    };
    let intents = driver.0.set_external(&call(), request)?;
    expect(intents.is_empty(), || {
        format!("nothing published gives {intents:?}")
    })?;
    drop(sandbox);
    driver.0.leave(&call(), endpoint_ref(ENDPOINT))?;
    driver.remove()?;
    expect_clean()
}

fn absent(driver: &Driver) -> Result<(), Problem> {
    driver.0.leave(&call(), endpoint_ref(ABSENT))?;
    driver.0.delete_endpoint(&call(), endpoint_ref(ABSENT))?;
    let network = NetworkRef { id: ABSENT.into() };
    Ok(driver.0.delete_network(&call(), network)?)
}

fn restart(subject: &Subject) -> Result<(), Problem> {
    let driver = Driver::of(subject)?;
    let (sandbox, plan) = driver.joined()?;
    drop(driver);
    subject
        .restart()
        .map_err(|e| Problem::Failed(e.to_string()))?;
    let driver = Driver::of(subject)?;
    let request = Reconcile {
        live: vec![NETWORK.into()],
        endpoints: vec![ENDPOINT.into()],
    };
    driver.0.reconcile(&call(), request)?;
    driver.0.create_network(&call(), driver.network()?)?;
    let inside = netns::inside(sandbox.as_fd(), || RouteSocket::open()?.links())?;
    let there = plan.link.is_empty() || inside.iter().any(|link| link.name == plan.link);
    expect(there, || {
        "reconcile took the link of a live endpoint".into()
    })?;
    let fds = [sandbox.as_fd()];
    driver
        .0
        .leave(&call().with_fds(&fds), endpoint_ref(ENDPOINT))?;
    driver.remove()?;
    expect_clean()
}
