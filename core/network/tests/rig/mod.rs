//! A host of its own: a network namespace with the service in it, and a second one that stands for the world outside.
#![allow(dead_code)]

pub(crate) mod refusing;
pub(crate) mod shared;

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry_driver_registry::{DriverRegistry, Local};
use gantry_model::ContainerId;
use gantry_network::*;
use gantry_network_bridge::BridgeNetwork;
use gantry_plugin_sdk::{DriverConfig, Log};
use gantry_sys::netlink::{Change, NewVeth, RouteSocket};
use gantry_sys::netns;

use refusing::{Refused, Refusing};

pub(crate) const TAG: &str = "feedc0de";
/// The host's address as the world sees it, and the world's.
pub(crate) const HOST: &str = "192.0.2.1";
pub(crate) const WORLD: &str = "192.0.2.2";

pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) service: Daemon,
    pub(crate) world: OwnedFd,
    /// What the driver refuses.
    pub(crate) refused: Refused,
    runtime: tokio::runtime::Runtime,
    netd: Option<PathBuf>,
}

/// The service of a daemon; none while the next one is about to start.
pub(crate) struct Daemon(Option<NetworkService>);

impl std::ops::Deref for Daemon {
    type Target = NetworkService;

    fn deref(&self) -> &NetworkService {
        self.0.as_ref().expect("a daemon runs")
    }
}

/// A container: nothing but its sandbox.
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) name: String,
    pub(crate) netns: OwnedFd,
    pub(crate) files: SandboxFiles,
}

impl Rig {
    /// Runs a test on a host of its own; afterwards nothing may be left of the engine.
    pub(crate) fn run(netd: Option<&str>, test: impl FnOnce(&mut Rig) + Send) {
        let netd = netd.map(PathBuf::from);
        netns::create(|| {
            let world = world()?;
            let before = links();
            let dir = tempfile::tempdir()?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?;
            let refused = Refused::default();
            let service = runtime.block_on(open(dir.path(), netd.clone(), TAG, &refused));
            let mut rig = Rig {
                dir,
                service: Daemon(Some(service)),
                world,
                refused,
                runtime,
                netd,
            };
            rig.block(rig.service.restore(Vec::new())).unwrap();
            test(&mut rig);
            end_servers();
            rig.block(rig.service.shutdown(true));
            let leftover = || {
                links()
                    .into_iter()
                    .filter(|l| !before.contains(l))
                    .collect::<Vec<_>>()
            };
            for _ in 0..3000 {
                if leftover().is_empty() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(leftover(), Vec::<String>::new(), "links are left over");
            assert_eq!(
                gantry_sys::nft::NftSocket::open()?
                    .chains()?
                    .iter()
                    .filter(|c| c.table.starts_with("gantry"))
                    .count(),
                0
            );
            Ok(())
        })
        .unwrap();
    }

    pub(crate) fn block<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(future)
    }

    /// Another daemon on the same roots, as after a crash of the first.
    pub(crate) fn restart(&mut self, live: &[&Container]) {
        let live = live.iter().map(|c| LiveSandbox {
            container: c.id.clone(),
            netns: Some(c.netns.try_clone().unwrap()),
        });
        let live: Vec<_> = live.collect();
        // There are never two: each would mend what the other changes of the rules.
        self.service.0 = None;
        let service = self.block(open(self.dir.path(), self.netd.clone(), TAG, &self.refused));
        self.service = Daemon(Some(service));
        self.block(self.service.restore(live)).unwrap();
    }

    pub(crate) fn spec(&self, name: &str) -> SandboxSpec {
        sandbox_spec(self.dir.path(), name)
    }

    pub(crate) fn start(&self, spec: SandboxSpec) -> Container {
        let (id, name) = (spec.container.clone(), spec.name.clone());
        let sandbox = self.block(self.service.sandbox(spec)).unwrap();
        Container {
            id,
            name,
            netns: sandbox.netns.unwrap(),
            files: sandbox.files,
        }
    }

    /// A container on one network.
    pub(crate) fn container(&self, name: &str, network: &str) -> (Container, EndpointInfo) {
        let container = self.start(self.spec(name));
        let endpoint = self
            .connect(&container, network, EndpointConfig::default())
            .unwrap();
        (container, endpoint)
    }

    pub(crate) fn connect(
        &self,
        container: &Container,
        network: &str,
        config: EndpointConfig,
    ) -> Result<EndpointInfo> {
        self.block(self.service.connect(&container.id, network, config))
    }

    pub(crate) fn network(
        &self,
        name: &str,
        change: impl FnOnce(&mut NetworkCreate),
    ) -> Result<NetworkRecord> {
        let mut wanted = NetworkCreate {
            name: name.into(),
            ..NetworkCreate::default()
        };
        change(&mut wanted);
        self.block(self.service.create(wanted))
    }

    pub(crate) fn publish(
        &self,
        container: &Container,
        host_port: u16,
        port: u16,
    ) -> Result<Vec<PortBinding>> {
        self.block(
            self.service
                .publish(&container.id, vec![request(host_port, port)]),
        )
    }

    pub(crate) fn end(&self, container: Container) {
        self.block(self.service.release(&container.id)).unwrap();
    }
}

/// A container's sandbox, with its files below `root`.
pub(crate) fn sandbox_spec(root: &Path, name: &str) -> SandboxSpec {
    let dir = root.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let container = ContainerId::generate();
    SandboxSpec {
        hostname: container.short().to_owned(),
        container,
        name: name.into(),
        dir,
        mode: SandboxMode::Own,
        domainname: String::new(),
        dns: Vec::new(),
        dns_search: Vec::new(),
        dns_options: Vec::new(),
        extra_hosts: Vec::new(),
        links: Vec::new(),
        egress: None,
    }
}

/// Asks until there is an answer: what other threads do is seen in their own time.
#[track_caller]
pub(crate) fn at_last<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = what() {
            return answer;
        }
        assert!(std::time::Instant::now() < end, "it never comes");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn request(host_port: u16, container_port: u16) -> PortRequest {
    PortRequest {
        protocol: Protocol::Tcp,
        container_port,
        host_ip: None,
        host_port,
        host_port_end: host_port,
    }
}

pub(crate) fn config(dir: &Path, tag: &str) -> NetworkConfig {
    NetworkConfig::new(dir.join("data"), dir.join("run"), tag.into(), "boot".into())
}

async fn open(dir: &Path, netd: Option<PathBuf>, tag: &str, refused: &Refused) -> NetworkService {
    let mut config = config(dir, tag);
    config.netd = netd;
    let registry = registry_with(dir, tag, refused.clone());
    NetworkService::open(config, registry).await.unwrap()
}

pub(crate) fn registry(dir: &Path, tag: &str) -> Arc<DriverRegistry> {
    registry_with(dir, tag, Refused::default())
}

fn registry_with(dir: &Path, tag: &str, refused: Refused) -> Arc<DriverRegistry> {
    let root = dir.join("driver");
    std::fs::create_dir_all(&root).unwrap();
    let config = DriverConfig {
        name: "bridge".into(),
        run: root.clone(),
        root,
        tag: tag.into(),
        options: gantry_plugin_sdk::serde_json::json!({}),
    };
    let registry = DriverRegistry::new();
    let driver = BridgeNetwork::new(config, Log::none()).unwrap();
    let bridge = Arc::new(Refusing { driver, refused });
    registry.register_local("bridge", Local::Network(bridge));
    Arc::new(registry)
}

/// Makes the world: beyond a link of the host's.
fn world() -> io::Result<OwnedFd> {
    let (world, mut outside) = netns::create(RouteSocket::open)?;
    let mut host = RouteSocket::open()?;
    host.apply(vec![Change::up(1), Change::bridge("wan", None)])?;
    let wan = host.link("wan")?.unwrap().index;
    host.apply(vec![
        Change::veth(&NewVeth {
            name: "wan0",
            master: wan,
            mtu: 0,
            peer: "wan",
            peer_mac: None,
            peer_netns: world.as_fd(),
            up: true,
        }),
        Change::address(wan, format!("{HOST}/24").parse().unwrap()),
        Change::up(wan),
        Change::default_route(WORLD.parse().unwrap(), wan),
    ])?;
    let link = outside.link("wan")?.unwrap().index;
    outside.apply(vec![
        Change::up(1),
        Change::address(link, format!("{WORLD}/24").parse().unwrap()),
        Change::up(link),
        // The world knows a way to containers, and must not be let in by it.
        Change::route("172.16.0.0/12".parse().unwrap(), None, link),
        Change::route(
            "172.16.0.0/12".parse().unwrap(),
            Some(HOST.parse().unwrap()),
            link,
        ),
    ])?;
    Ok(world)
}

pub(crate) fn links() -> Vec<String> {
    let links = RouteSocket::open().unwrap().links().unwrap();
    links.into_iter().map(|l| l.name).collect()
}

/// Servers that were started, to be ended with their tests: a listening socket holds its namespace.
static SERVERS: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());

/// Listens inside a namespace; every client is told its own address.
pub(crate) fn serve(netns: &OwnedFd, port: u16) {
    let any = IpAddr::from([0, 0, 0, 0]);
    serve_on(netns::inside(netns, || TcpListener::bind((any, port))).unwrap());
}

pub(crate) fn serve_on(listener: TcpListener) {
    SERVERS.lock().unwrap().push(listener.try_clone().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut client, peer)) = listener.accept() {
            // A client that went away has its answer.
            let _ = client.write_all(peer.ip().to_string().as_bytes());
        }
    });
}

/// Ends every server of this process, which runs one test.
fn end_servers() {
    for server in SERVERS.lock().unwrap().drain(..) {
        rustix::net::shutdown(&server, rustix::net::Shutdown::Both).unwrap();
    }
}

fn talk(address: &str) -> io::Result<String> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(1500))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Connects from a namespace; returns the address that the server saw.
pub(crate) fn ask_from(netns: &OwnedFd, address: &str) -> io::Result<String> {
    netns::inside(netns, || talk(address))
}

/// Connects from the host.
pub(crate) fn ask(address: &str) -> io::Result<String> {
    talk(address)
}

/// Another engine on the same host.
pub(crate) struct Other {
    pub(crate) service: NetworkService,
    runtime: tokio::runtime::Runtime,
}

pub(crate) fn another(dir: &Path, tag: &str) -> Other {
    another_with(config(dir, tag), registry(dir, tag))
}

pub(crate) fn another_with(config: NetworkConfig, registry: Arc<DriverRegistry>) -> Other {
    another_live(config, registry, Vec::new())
}

/// Another engine, which finds containers that live.
pub(crate) fn another_live(
    config: NetworkConfig,
    registry: Arc<DriverRegistry>,
    live: Vec<LiveSandbox>,
) -> Other {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let service = runtime
        .block_on(NetworkService::open(config, registry))
        .unwrap();
    runtime.block_on(service.restore(live)).unwrap();
    Other { service, runtime }
}

impl Other {
    pub(crate) fn block<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(future)
    }

    pub(crate) fn end(self) {
        self.runtime.block_on(self.service.shutdown(true));
    }
}
