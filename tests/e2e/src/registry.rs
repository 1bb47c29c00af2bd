//! Debian's docker-registry on a loopback port, with the kinds of access that it knows.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::authority::Pair;
use crate::fixture::{busybox_rootfs, free_port, stack_layout};
use crate::run::{eventually, run};
use crate::token::Realm;

/// How to serve.
#[derive(Default)]
pub struct Serve<'a> {
    /// Wants the password `secret` of the user `alice`.
    pub password: bool,
    /// Wants tokens of a token server.
    pub realm: Option<&'a Realm>,
    /// Speaks TLS.
    pub tls: Option<&'a Pair>,
    /// Wants a client certificate that this authority signed.
    pub client_ca: Option<PathBuf>,
}

/// A docker-registry on a loopback port.
pub struct Registry {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Registry {
    /// Starts one without authentication.
    pub fn start() -> Self {
        Self::with(&Serve::default())
    }

    /// Starts one with a user `alice`, password `secret`.
    pub fn with_password() -> Self {
        Self::with(&Serve {
            password: true,
            ..Serve::default()
        })
    }

    /// Starts one.
    pub fn with(serve: &Serve<'_>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        fs::write(
            dir.path().join("config.yml"),
            configuration(serve, dir.path(), port),
        )
        .expect("a temporary directory is writable");
        let child = serve_from(dir.path(), port);
        Self { dir, port, child }
    }

    /// Kills its process.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is our child");
    }

    /// Starts it again with what it had, after [`Registry::kill`].
    pub fn boot(&mut self) {
        self.child = serve_from(self.dir.path(), self.port);
    }

    /// Its port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// What it logged, requests included.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
    /// `127.0.0.1:PORT`.
    pub fn domain(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
    /// Pushes the image of one service of the stacks as `stack:SERVICE`.
    pub fn push_stack_image(&self, service: &str) {
        let source = format!("oci:{}:{service}", stack_layout().display());
        let target = format!("docker://{}/stack:{service}", self.domain());
        run(
            "skopeo",
            &["copy", "-q", "--dest-tls-verify=false", &source, &target],
        )
        .ok();
    }
    /// Pushes busybox as an image of one layer.
    pub fn push_busybox(&self, name: &str) {
        let root = self.dir().join("root");
        busybox_rootfs(&root);
        self.push_rootfs(&root, name);
    }
    /// Pushes a root file system directory as a one-layer image.
    pub fn push_rootfs(&self, root: &Path, name: &str) {
        self.push_layers(&[root], name);
    }
    /// Pushes an image of which each of these directories is a layer, the lowest first.
    pub fn push_layers(&self, roots: &[&Path], name: &str) {
        let archive = self.dir().join("layout").display().to_string();
        let _ = fs::remove_dir_all(&archive);
        run("umoci", &["init", "--layout", &archive]).ok();
        let image = format!("{archive}:new");
        run("umoci", &["new", "--image", &image]).ok();
        for root in roots {
            let root = root.display().to_string();
            run("umoci", &["insert", "--image", &image, &root, "/"]).ok();
        }
        run(
            "umoci",
            &["config", "--image", &image, "--config.cmd", "/bin/sh"],
        )
        .ok();
        let target = format!("docker://{}/{name}", self.domain());
        run(
            "skopeo",
            &[
                "copy",
                "-q",
                "--dest-tls-verify=false",
                &format!("oci:{image}"),
                &target,
            ],
        )
        .ok();
    }
}

/// The digest that skopeo finds for an image, which is named with its transport.
#[track_caller]
pub fn skopeo_digest(source: &str, options: &[&str]) -> String {
    let words = [&["inspect", "-f", "{{.Digest}}"], options, &[source]];
    run("skopeo", &words.concat()).ok()
}

/// Starts the server that is configured in `dir`, and waits until it listens.
fn serve_from(dir: &Path, port: u16) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .expect("a temporary directory is writable");
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(dir.join("config.yml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor is left"))
        .stderr(log)
        .spawn()
        .expect("package docker-registry is installed");
    eventually("the registry answers", 30, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    child
}

fn configuration(serve: &Serve<'_>, dir: &Path, port: u16) -> String {
    let data = dir.join("data").display().to_string();
    let mut text = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: false}}}}\nstorage:\n  filesystem: {{rootdirectory: \
         {data}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n"
    );
    if let Some(Pair { certificate, key }) = serve.tls {
        let (certificate, key) = (certificate.display(), key.display());
        let _ = write!(
            text,
            "  tls:\n    certificate: {certificate}\n    key: {key}\n"
        );
        if let Some(authority) = &serve.client_ca {
            let _ = writeln!(text, "    clientcas: [{}]", authority.display());
        }
    }
    if serve.password {
        let passwords = dir.join("htpasswd");
        let line = run("htpasswd", &["-Bbn", "alice", "secret"]).ok();
        fs::write(&passwords, format!("{line}\n")).expect("a temporary directory is writable");
        let path = passwords.display();
        let _ = write!(
            text,
            "auth:\n  htpasswd:\n    realm: test\n    path: {path}\n"
        );
    }
    if let Some(realm) = serve.realm {
        text += &realm.configuration();
    }
    text
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
