//! A real registry with real images, and a service on a storage driver that takes parents late.

#![allow(dead_code)]

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gantry_content::ContentStore;
use gantry_driver_api::{DriverConfig, Storage};
use gantry_driver_registry::{DriverRegistry, Local};
use gantry_image::{ImageService, Message, Progress, Settings};
use gantry_plugin_mock::MockStorage;
use gantry_plugin_sdk::Log;
use gantry_registry_hub::Hub;
use gantry_store::Store;

mod disk;
mod late;
pub(crate) use disk::DiskRegistry;
pub(crate) use late::LateStorage;

/// Runs a program and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Debian's docker-registry on a loopback port.
pub(crate) struct RegistryServer {
    child: Child,
    pub(crate) port: u16,
    pub(crate) root: tempfile::TempDir,
}

impl RegistryServer {
    pub(crate) fn start(auth: Option<(&str, &str)>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n",
            root = root.path().display()
        );
        if let Some((user, hash)) = auth {
            let file = root.path().join("htpasswd");
            std::fs::write(&file, format!("{user}:{hash}\n")).unwrap();
            config += &format!(
                "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                file.display()
            );
        }
        let path = root.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "docker-registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port, root }
    }

    pub(crate) fn domain(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An OCI layout with the image `latest` of three layers: busybox, a change of it, and deletions.
pub(crate) struct Layout {
    pub(crate) dir: tempfile::TempDir,
}

impl Layout {
    pub(crate) fn busybox() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = dir.path().join("layout");
        let image = format!("{}:latest", layout.display());
        run("umoci", &["init", "--layout", layout.to_str().unwrap()]);
        run("umoci", &["new", "--image", &image]);
        Self::layer(&image, dir.path(), "1", |root| {
            for name in ["bin", "etc", "tmp", "usr/share/doc", "opt/gone"] {
                std::fs::create_dir_all(root.join(name)).unwrap();
            }
            std::fs::copy("/usr/bin/busybox", root.join("bin/busybox")).unwrap();
            std::fs::hard_link(root.join("bin/busybox"), root.join("bin/sh")).unwrap();
            symlink("/bin/busybox", root.join("bin/ls")).unwrap();
            std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
            std::fs::write(root.join("opt/gone/file"), "gone").unwrap();
            std::fs::write(root.join("usr/share/doc/big"), noise(3 << 20)).unwrap();
        });
        Self::layer(&image, dir.path(), "2", |root| {
            std::fs::write(root.join("etc/motd"), "hello\n").unwrap();
            std::fs::write(root.join("etc/big"), noise(2 << 20)).unwrap();
        });
        Self::layer(&image, dir.path(), "3", |root| {
            std::fs::remove_dir_all(root.join("opt/gone")).unwrap();
            std::fs::remove_file(root.join("bin/ls")).unwrap();
        });
        run(
            "umoci",
            &[
                "config",
                "--image",
                &image,
                "--config.cmd",
                "sh",
                "--config.env",
                "A=b",
                "--config.label",
                "k=v",
                "--config.workingdir",
                "/tmp",
                "--config.volume",
                "/data",
                "--config.exposedports",
                "80/tcp",
                "--architecture",
                gantry_model::Platform::host().architecture.as_str(),
            ],
        );
        Self { dir }
    }

    fn layer(image: &str, dir: &Path, name: &str, change: impl FnOnce(&Path)) {
        let bundle = dir.join(name);
        let bundle_name = bundle.to_str().unwrap();
        run("umoci", &["unpack", "--image", image, bundle_name]);
        change(&bundle.join("rootfs"));
        run("umoci", &["repack", "--image", image, bundle_name]);
        std::fs::remove_dir_all(bundle).unwrap();
    }

    pub(crate) fn source(&self) -> String {
        format!("oci:{}/layout:latest", self.dir.path().display())
    }

    /// Makes another image of the same layers, and copies it to `target`.
    pub(crate) fn push_variant(&self, name: &str, target: &str) {
        let layout = self.dir.path().join("layout").display().to_string();
        let image = format!("{layout}:latest");
        run(
            "umoci",
            &["config", "--image", &image, "--tag", name, "--author", name],
        );
        Self::copy(&format!("oci:{layout}:{name}"), target, &[]);
    }

    /// Copies the image to `target` (a skopeo reference).
    pub(crate) fn push(&self, target: &str, extra: &[&str]) {
        Self::copy(&self.source(), target, extra);
    }

    fn copy(source: &str, target: &str, extra: &[&str]) {
        let mut arguments = vec![
            "copy",
            "--insecure-policy",
            "--dest-tls-verify=false",
            "--quiet",
        ];
        arguments.extend(extra);
        arguments.extend([source, target]);
        run("skopeo", &arguments);
    }
}

/// Bytes that do not compress, the same each time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

/// Removal by force.
pub(crate) fn forced() -> gantry_image::RemoveOptions {
    gantry_image::RemoveOptions {
        force: true,
        ..Default::default()
    }
}

/// Removal that gives way to all obstacles.
pub(crate) fn gently() -> gantry_image::RemoveOptions {
    gantry_image::RemoveOptions::default()
}

/// A service on a fresh or given data-root.
pub(crate) struct Service {
    pub(crate) root: PathBuf,
    pub(crate) images: ImageService,
    pub(crate) store: Store,
    pub(crate) content: ContentStore,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) late: Option<Arc<LateStorage>>,
    _dir: Option<tempfile::TempDir>,
}

impl Service {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default(), true)
    }

    pub(crate) fn with(settings: Settings, late: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut service = Self::at(dir.path(), settings, late);
        service._dir = Some(dir);
        service
    }

    pub(crate) fn at(root: &Path, settings: Settings, late: bool) -> Self {
        let settings = Settings {
            retry_base: Duration::from_millis(5),
            certs_dirs: Vec::new(),
            ..settings
        };
        let config = |name: &str| {
            let root = root.join(name);
            std::fs::create_dir_all(&root).unwrap();
            DriverConfig {
                name: name.into(),
                run: root.clone(),
                root,
                tag: "00000000".into(),
                options: serde_json::json!({}),
            }
        };
        let drivers = DriverRegistry::new();
        let late = late.then(|| Arc::new(LateStorage::new(config("overlayfs").root)));
        let storage: Arc<dyn Storage> = match &late {
            Some(late) => late.clone(),
            None => Arc::new(MockStorage::new(config("overlayfs"), Log::none()).unwrap()),
        };
        drivers.register_local("overlayfs", Local::Storage(storage.clone()));
        let hub = Hub::new(config("hub"), Log::none()).unwrap();
        drivers.register_local("hub", Local::Registry(Arc::new(hub)));
        let disk = DiskRegistry::new(config("disk").root);
        drivers.register_local("disk", Local::Registry(Arc::new(disk)));
        drivers.set_routes([("disk.local".into(), "disk".into())].into());
        let store = Store::open(&root.join("state.redb")).unwrap();
        let content = ContentStore::open(&root.join("content"), &store).unwrap();
        let encode = Arc::new(
            |event: &gantry_image::ImageEvent| serde_json::json!({"action": event.action, "id": event.id, "name": event.name}),
        );
        let images =
            ImageService::open(settings, &store, content.clone(), Arc::new(drivers), encode)
                .unwrap();
        images.reconcile(&[]).unwrap();
        Self {
            root: root.into(),
            images,
            store,
            content,
            storage,
            late,
            _dir: None,
        }
    }

    /// The actions of all events so far.
    pub(crate) fn actions(&self) -> Vec<String> {
        let events = self.store.events_after(0).unwrap();
        events
            .iter()
            .map(|event| event.value["action"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Keeps every message.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<Message>>);

impl Progress for Recorder {
    fn report(&self, message: Message) {
        self.0.lock().unwrap().push(message);
    }
}

impl Recorder {
    /// `id: status`, one a message.
    pub(crate) fn lines(&self) -> Vec<String> {
        let messages = self.0.lock().unwrap();
        messages
            .iter()
            .map(
                |message| match (&message.stream, &message.status, &message.id) {
                    (Some(text), _, _) => text.clone(),
                    (_, Some(status), Some(id)) => format!("{id}: {status}"),
                    (_, status, _) => status.clone().unwrap_or_default(),
                },
            )
            .collect()
    }

    pub(crate) fn has(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }
}

/// A TCP relay in front of a registry that cuts connections off.
pub(crate) struct Relay {
    pub(crate) port: u16,
    /// Bytes from the server after which a connection is cut, for the connections to come; then none is cut.
    pub(crate) cuts: Arc<Mutex<Vec<usize>>>,
    /// The same for uploads: bytes to the server.
    pub(crate) upload_cuts: Arc<Mutex<Vec<usize>>>,
    /// The first line and the `range` header of every request seen.
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
}

impl Relay {
    /// Answers to requests for blobs of at least `large` bytes are subject to cuts.
    pub(crate) fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self {
            port: listener.local_addr().unwrap().port(),
            cuts: Arc::default(),
            upload_cuts: Arc::default(),
            requests: Arc::default(),
        };
        let (cuts, requests) = (relay.cuts.clone(), relay.requests.clone());
        let upload_cuts = relay.upload_cuts.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
                let (cuts, requests) = (cuts.clone(), requests.clone());
                let upload_cuts = upload_cuts.clone();
                std::thread::spawn(move || {
                    relay_one(&client, &server, &cuts, &upload_cuts, &requests);
                });
            }
        });
        relay
    }

    pub(crate) fn domain(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn ranges(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .filter(|line| line.starts_with("range:"))
            .cloned()
            .collect()
    }
}

fn relay_one(
    client: &TcpStream,
    server: &TcpStream,
    cuts: &Mutex<Vec<usize>>,
    upload_cuts: &Mutex<Vec<usize>>,
    requests: &Mutex<Vec<String>>,
) {
    use std::io::{Read, Write};
    let cutting = std::sync::atomic::AtomicUsize::new(usize::MAX);
    let order = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut from, mut to) = (client, server);
            let mut buffer = [0; 16384];
            let mut left = usize::MAX;
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]).to_lowercase();
                if text.starts_with("get ") && text.contains("/blobs/") {
                    let next = cuts.lock().unwrap().pop();
                    cutting.store(next.unwrap_or(usize::MAX), order);
                }
                requests.lock().unwrap().extend(
                    text.lines()
                        .filter(|line| line.starts_with("get ") || line.starts_with("range:"))
                        .map(str::to_owned),
                );
                if text.starts_with("patch ") && text.contains("/blobs/uploads/") {
                    left = upload_cuts.lock().unwrap().pop().unwrap_or(usize::MAX);
                }
                let count = count.min(left);
                left -= if left == usize::MAX { 0 } else { count };
                if to.write_all(&buffer[..count]).is_err() || left == 0 {
                    break;
                }
            }
            let _ = client.shutdown(std::net::Shutdown::Both);
            let _ = server.shutdown(std::net::Shutdown::Both);
        });
        let (mut from, mut to) = (server, client);
        let mut buffer = [0; 16384];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let left = cutting.load(order);
            let count = count.min(left);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
            if left != usize::MAX {
                cutting.store(left - count, order);
                if left == count {
                    break;
                }
            }
        }
        let _ = client.shutdown(std::net::Shutdown::Both);
        let _ = server.shutdown(std::net::Shutdown::Both);
    });
}
