//! The daemon killed while a running container is attached to a network, or detached from it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gantry_e2e::{Card, Engine, docker, eventually};

use crate::tools::begin;

/// Kills the daemon when it opens a file.
struct Trap(Child);

impl Trap {
    fn set(engine: &Engine, file: &Path) -> Self {
        let mut child = Command::new("strace")
            .args(["-f", "-e", "trace=openat", "-P"])
            .arg(file)
            .args(["-e", "inject=openat:signal=KILL"])
            .args(["-p", &engine.pid().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("package strace is installed");
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(said.next().unwrap().unwrap().contains("attached"));
        std::thread::spawn(move || said.for_each(drop));
        Self(child)
    }

    /// What it held goes on.
    fn take_away(mut self) {
        // Asked to end, it would wait for what the daemon has started and for nobody to end it.
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The file that a container's next state but `skipped` will be written to.
fn next(dir: &Path, id: &str, of_all: bool, skipped: u64) -> PathBuf {
    let numbers = fs::read_dir(dir).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (owner, number) = name.strip_suffix(".json")?.split_once('.')?;
        (of_all || owner == id).then(|| number.parse::<u64>().unwrap())
    });
    let last = numbers.max().expect("the container runs");
    dir.join(format!("{id}.{}.json", last + 1 + skipped))
}

/// Where the daemon is killed.
#[derive(Debug, Clone, Copy)]
enum Point {
    /// Writing the sandbox down, after so many times.
    Sandbox(u64),
    /// Writing the container's `hosts`.
    Hosts,
    /// Writing the container's `resolv.conf`.
    Resolv,
    /// Writing the container's record, when the sandbox is done.
    Record,
}

const POINTS: [Point; 7] = [
    Point::Sandbox(0),
    Point::Hosts,
    Point::Resolv,
    Point::Sandbox(1),
    Point::Sandbox(2),
    Point::Sandbox(3),
    Point::Record,
];

impl Point {
    fn file(self, engine: &Engine, id: &str) -> PathBuf {
        let own = engine.data().join("containers").join(id);
        let run = engine.dir().join("run");
        match self {
            Self::Sandbox(n) => next(&run.join("network/sandboxes"), id, true, n),
            Self::Hosts => own.join("hosts"),
            Self::Resolv => own.join("resolv.conf"),
            Self::Record => next(&run.join("state"), id, false, 0),
        }
    }
}

/// A running container, `box`, and a network that has its default route when it is on it.
struct Stage {
    engine: Engine,
    id: String,
    /// Links of the engine's on the host, while the container is on the default network alone.
    links: usize,
    on_bridge: bool,
}

impl Stage {
    fn new(options: &str) -> Self {
        let engine = Engine::start();
        let subnet = "--subnet 10.236.28.0/24 --gateway 10.236.28.1";
        docker(&engine, &format!("network create {options} {subnet} aside")).ok();
        let id = docker(&engine, "run -d --name box busybox sleep 3600").ok();
        let mut stage = Self {
            engine,
            id,
            links: 0,
            on_bridge: options.contains("bridge"),
        };
        stage.links = stage.links();
        stage
    }

    fn links(&self) -> usize {
        let list = fs::read_dir("/sys/class/net").unwrap();
        let names = list.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|n| n.contains(self.engine.tag())).count()
    }

    fn inside(&self, file: &str) -> String {
        let pid = docker(&self.engine, "inspect -f {{.State.Pid}} box").ok();
        fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the container runs")
    }

    /// Whether the container is on the network, of which all must be of one mind.
    #[track_caller]
    fn is_on(&self, when: &str) -> bool {
        let network = "network inspect -f {{range.Containers}}{{.Name}}{{end}} aside";
        let is_member = docker(&self.engine, network).ok() == "box";
        let inspect = |format: &str| self.engine.docker(&["inspect", "-f", format, "box"]).ok();
        let listed = inspect("{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}");
        let joined = inspect("{{with .NetworkSettings.Networks.aside}}{{.EndpointID}}{{end}}");
        let hosts = fs::read_to_string(inspect("{{.HostsPath}}")).unwrap();
        let (links, routes) = (self.inside("net/dev"), self.inside("net/route"));
        let default = if is_member {
            "eth1\t00000000"
        } else {
            "eth0\t00000000"
        };
        let told = [
            ("listed", listed.split(' ').any(|name| name == "aside")),
            ("joined", !joined.is_empty()),
            ("in hosts", hosts.contains("10.236.28.")),
            ("linked", links.contains("eth1")),
            ("routed", routes.contains("eth1")),
            ("default route", routes.contains(default) == is_member),
        ];
        for (what, is_so) in told {
            assert_eq!(
                is_so, is_member,
                "{when}: {what}; {listed}; {joined}\n{hosts}\n{links}\n{routes}"
            );
        }
        assert!(routes.contains(default), "{when}: {routes}");
        let links = self.links + usize::from(is_member && self.on_bridge);
        eventually("no link is left over", 30, || {
            (self.links() == links).then_some(())
        });
        is_member
    }

    /// Changes the container's networks, with a kill at a point on the way, and looks at what comes of it. Whether the daemon
    /// got that far.
    #[track_caller]
    fn change(&mut self, line: &str, point: Point) -> bool {
        let trap = Trap::set(&self.engine, &point.file(&self.engine, &self.id));
        let args: Vec<&str> = line.split(' ').collect();
        let done = begin(&self.engine, &args).wait().unwrap().success();
        if !done {
            eventually("the daemon is killed", 30, || {
                UnixStream::connect(self.engine.socket()).err()
            });
        }
        trap.take_away();
        self.engine.kill9();
        self.engine.boot();
        let when = format!("{line}, killed at {point:?} ({done})");
        let is_on = self.is_on(&when);
        assert!(!done || is_on == line.contains(" connect "), "{when}");
        // The next run is on the networks that this one was said to be on.
        docker(&self.engine, "restart -t 0 box").ok();
        assert_eq!(self.is_on(&format!("{when}, restarted")), is_on);
        !done
    }

    #[track_caller]
    fn run(mut self) {
        const CONNECT: &str = "network connect --ip 10.236.28.9 aside box";
        const DISCONNECT: &str = "network disconnect aside box";
        for line in [CONNECT, DISCONNECT] {
            let mut killed = 0;
            for point in POINTS {
                let wanted = line == DISCONNECT;
                if self.is_on("before") != wanted {
                    docker(&self.engine, if wanted { CONNECT } else { DISCONNECT }).ok();
                }
                assert_eq!(self.is_on("at first"), wanted);
                killed += usize::from(self.change(line, point));
            }
            assert!(killed >= 5, "{line}: {killed} kills");
        }
        docker(&self.engine, "rm -f box").ok();
        docker(&self.engine, "network rm aside").ok();
        self.engine.finish();
    }
}

#[test]
fn a_kill_between_sandbox_and_record_leaves_them_of_one_mind() {
    Stage::new("-d bridge").run();
}

#[test]
fn a_kill_leaves_no_link_in_a_container() {
    let card = Card::new();
    Stage::new(&format!("-d macvlan -o parent={}", card.name())).run();
}

#[test]
fn a_container_on_no_network_is_found_again() {
    let mut engine = Engine::start();
    docker(&engine, "run -d --name box busybox sleep 3600").ok();
    docker(&engine, "network disconnect bridge box").ok();
    docker(&engine, "restart -t 0 box").ok();
    engine.kill9();
    engine.boot();
    docker(&engine, "network connect bridge box").ok();
    let links = docker(&engine, "exec box ls /sys/class/net").ok();
    assert_eq!(links, "eth0\nlo");
    engine.finish();
}
