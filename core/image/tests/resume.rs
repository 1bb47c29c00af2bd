//! Pulls that are cut off: by the network, by the user, by a kill.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Layout, Recorder, RegistryServer, Relay, Service};
use gantry_driver_api::{Call, ErrorCode};
use gantry_image::{Error, Message, Progress, PullOptions, Settings, Silent};
use gantry_model::Reference;

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

#[test]
fn a_cut_connection_is_resumed_within_the_pull() {
    let registry = RegistryServer::start(None);
    let layout = Layout::busybox();
    layout.push(&format!("docker://{}/box:1", registry.domain()), &[]);
    let relay = Relay::start(registry.port);
    // The first blob is the configuration; the large layers are cut in the middle, and again.
    relay
        .cuts
        .lock()
        .unwrap()
        .extend([600_000, 500_000, 1_000_000, 1_000_000, usize::MAX]);
    let service = Service::new();
    let recorder = Recorder::default();
    let name = format!("{}/box:1", relay.domain());
    service
        .images
        .pull(&reference(&name), &PullOptions::default(), &recorder)
        .unwrap();
    assert!(recorder.has(": Retrying in "), "{:?}", recorder.lines());
    let ranges = relay.ranges();
    assert!(
        ranges.len() >= 3 && ranges.iter().all(|range| !range.contains("bytes=0-")),
        "{ranges:?}"
    );
    assert!(service.images.get(&name, None).is_ok());
}

#[test]
fn a_failed_pull_is_gone_on_with_by_the_next() {
    let registry = RegistryServer::start(None);
    let layout = Layout::busybox();
    layout.push(&format!("docker://{}/box:1", registry.domain()), &[]);
    let relay = Relay::start(registry.port);
    let name = format!("{}/box:1", relay.domain());
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_attempts: 1,
        max_downloads: 1,
        ..Settings::default()
    };
    relay.cuts.lock().unwrap().extend([700_000, usize::MAX]);
    {
        let service = Service::at(dir.path(), settings.clone(), true);
        let error = service
            .images
            .pull(&reference(&name), &PullOptions::default(), &Silent)
            .unwrap_err();
        assert_eq!(error.code(), ErrorCode::Internal, "{error}");
        assert!(service.images.list(&Default::default()).unwrap().is_empty());
        assert!(
            service
                .storage
                .list(&Call::new("t"), ())
                .unwrap()
                .is_empty()
        );
    }
    assert!(relay.ranges().is_empty());
    // A restart collects garbage, and the half download is none.
    let service = Service::at(dir.path(), settings, true);
    service
        .images
        .pull(&reference(&name), &PullOptions::default(), &Silent)
        .unwrap();
    let ranges = relay.ranges();
    assert_eq!(ranges.len(), 1, "{ranges:?}");
}

/// Gives up after so many bytes of download messages.
struct Impatient(AtomicBool);

impl Progress for Impatient {
    fn report(&self, message: Message) {
        if message.status.as_deref() == Some("Downloading") {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn a_cancelled_pull_ends_and_leaves_no_image() {
    let registry = RegistryServer::start(None);
    let name = format!("{}/box:1", registry.domain());
    Layout::busybox().push(&format!("docker://{name}"), &[]);
    let service = Service::new();
    let error = service
        .images
        .pull(
            &reference(&name),
            &PullOptions::default(),
            &Impatient(AtomicBool::new(false)),
        )
        .unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(service.images.list(&Default::default()).unwrap().is_empty());
    assert!(
        service
            .storage
            .list(&Call::new("t"), ())
            .unwrap()
            .is_empty()
    );
    service
        .images
        .pull(&reference(&name), &PullOptions::default(), &Silent)
        .unwrap();
}

/// A mirror answers for Docker Hub, and another host's images are not asked of it.
#[test]
fn mirrors() {
    let registry = RegistryServer::start(None);
    Layout::busybox().push(
        &format!("docker://{}/library/busybox:latest", registry.domain()),
        &[],
    );
    let dead = common::free_port();
    let settings = Settings {
        mirrors: [(
            "docker.io".to_owned(),
            vec![
                format!("http://127.0.0.1:{dead}"),
                format!("http://{}/", registry.domain()),
            ],
        )]
        .into(),
        ..Settings::default()
    };
    let service = Service::with(settings, true);
    let recorder = Recorder::default();
    service
        .images
        .pull(&reference("busybox"), &PullOptions::default(), &recorder)
        .unwrap();
    assert_eq!(recorder.lines()[0], "latest: Pulling from library/busybox");
    let inspect = service
        .images
        .inspect("busybox", &Default::default())
        .unwrap();
    assert_eq!(inspect.repo_tags, ["busybox:latest"]);
}

/// In the child: data-root and image.
const CHILD: &str = "GANTRY_IMAGE_CRASH_CHILD";

/// Not a test of its own: the process that is killed.
#[test]
fn child_pulls_until_it_is_killed() {
    let Ok(text) = std::env::var(CHILD) else {
        return;
    };
    let (root, name) = text.split_once('|').unwrap();
    let service = Service::at(Path::new(root), Settings::default(), true);
    let tell = |message: Message| println!("step {:?}", message.status);
    service
        .images
        .pull(&reference(name), &PullOptions::default(), &tell)
        .unwrap();
    println!("step done");
}

#[test]
fn a_kill_at_any_step_loses_and_leaves_nothing() {
    let registry = RegistryServer::start(None);
    let name = format!("{}/box:1", registry.domain());
    Layout::busybox().push(&format!("docker://{name}"), &[]);
    let mut done = 0;
    for steps in [1, 3, 5, 8, 11, 14, 17, 20, 23, 26, 30, 40] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_pulls_until_it_is_killed", "--exact", "--nocapture"])
            .env(CHILD, format!("{}|{name}", dir.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let seen: Vec<String> = lines
            .map_while(Result::ok)
            .filter(|line| line.contains("step "))
            .take(steps)
            .collect();
        child.kill().unwrap();
        child.wait().unwrap();

        let service = Service::at(dir.path(), Settings::default(), true);
        let there = service.images.get(&name, None).is_ok();
        let acknowledged = seen.iter().any(|line| line.contains("Status: "));
        assert!(
            there || !acknowledged,
            "an acknowledged image is lost after {steps} steps"
        );
        done += usize::from(there);
        let snapshots = service.storage.list(&Call::new("t"), ()).unwrap();
        assert_eq!(
            snapshots.len(),
            if there { 3 } else { 0 },
            "after {steps} steps: {snapshots:?}"
        );
        assert_eq!(service.actions().len(), usize::from(there));
        service
            .images
            .pull(&reference(&name), &PullOptions::default(), &Silent)
            .unwrap();
        assert!(
            service
                .images
                .prepare_container("c", &service.images.find(&name).unwrap(), None)
                .is_ok()
        );
    }
    assert!(done > 0 && done < 12, "kills came at every stage: {done}");
}
