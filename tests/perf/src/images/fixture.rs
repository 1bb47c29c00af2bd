//! An image made of this machine's own files, and registries to move it between.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::peers::shell;

/// Layers: where their files are from, and which megabytes of those in order of name.
const LAYERS: [(&str, u32, u32); 5] = [
    ("/usr/lib", 0, 190),
    ("/usr/share", 0, 130),
    ("/usr/bin", 0, 90),
    ("/usr/lib", 190, 230),
    ("/usr/share", 130, 146),
];
/// The name that the archive gives to the image.
pub(super) const LOADED: &str = "loaded:1";

/// The image, in a registry and as an archive.
pub(super) struct Image {
    /// In the registry.
    pub(super) name: String,
    /// The same with one file more.
    pub(super) changed: String,
    /// As `docker save` writes it.
    pub(super) archive: PathBuf,
    /// URLs of the layers' blobs.
    pub(super) layers: Vec<String>,
    /// Bytes of those.
    pub(super) blob_bytes: u64,
}

impl Image {
    /// Makes the image and the changed one, and pushes both.
    pub(super) fn make(dir: &Path, registry: &Registry) -> Result<Self> {
        let mut layers = Vec::new();
        for (at, (from, begin, end)) in LAYERS.into_iter().enumerate() {
            let name = format!("layer{at}.tar");
            let place = dir.display();
            shell(&format!(
                "find {from} -xdev -type f -size -8192k -printf '%s %p\\n' | sort -k2 | awk -v a={begin}e6 -v b={end}e6 \
                 '{{ if (sum >= a && sum < b) print substr($0, index($0, \" \") + 1); sum += $1 }}' >{place}/files && \
                 tar -C / --owner=0 --group=0 -cf {place}/{name} -T {place}/files 2>/dev/null"
            ))?;
            layers.push(name);
        }
        let archive = archive(dir, "image", &layers, LOADED)?;
        fs::write(dir.join("change"), "one file")?;
        let place = dir.display();
        shell(&format!(
            "tar -C {place} --owner=0 --group=0 -cf {place}/change.tar change"
        ))?;
        layers.push("change.tar".into());
        let changed = self::archive(dir, "changed", &layers, "changed:1")?;
        let repository = format!("{}/perf", registry.domain());
        for (archive, tag) in [(&archive, "1"), (&changed, "2")] {
            shell(&format!(
                "skopeo copy -q --dest-tls-verify=false docker-archive:{} docker://{repository}:{tag}",
                archive.display()
            ))?;
        }
        fs::remove_file(changed)?;
        let manifest = registry.manifest(dir, "perf", "1")?;
        let blobs = manifest["layers"].as_array().context("no layers")?;
        let blob = |blob: &Value| {
            let digest = blob["digest"].as_str().unwrap_or_default();
            format!("http://{}/v2/perf/blobs/{digest}", registry.domain())
        };
        Ok(Self {
            name: format!("{repository}:1"),
            changed: format!("{repository}:2"),
            archive,
            layers: blobs.iter().map(blob).collect(),
            blob_bytes: blobs.iter().filter_map(|blob| blob["size"].as_u64()).sum(),
        })
    }

    /// Bytes of the archive.
    pub(super) fn plain_bytes(&self) -> Result<u64> {
        Ok(fs::metadata(&self.archive)?.len())
    }
}

/// Writes a docker-archive of layers in `dir`.
fn archive(dir: &Path, name: &str, layers: &[String], tag: &str) -> Result<PathBuf> {
    let mut diff_ids = Vec::new();
    for layer in layers {
        diff_ids.push(format!("sha256:{}", sha256(&dir.join(layer))?));
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": layers.iter().map(|layer| json!({"created_by": layer})).collect::<Vec<_>>(),
    });
    let config_name = format!("{name}.json");
    fs::write(dir.join(&config_name), config.to_string())?;
    let manifest = json!([{"Config": config_name, "RepoTags": [tag], "Layers": layers}]);
    fs::write(dir.join("manifest.json"), manifest.to_string())?;
    let archive = dir.join(format!("{name}.tar"));
    let place = dir.display();
    shell(&format!(
        "tar -C {place} -cf {} manifest.json {config_name} {}",
        archive.display(),
        layers.join(" ")
    ))?;
    Ok(archive)
}

fn sha256(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(file).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split(' ').next().context("no digest")?.to_owned())
}

/// A docker-registry on the loopback device; ends when dropped.
pub(super) struct Registry {
    port: u16,
    child: Child,
    dir: PathBuf,
}

impl Registry {
    /// Starts an empty one in a directory to be made.
    pub(super) fn start(dir: &Path) -> Result<Self> {
        fs::create_dir(dir)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = dir.join("config.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \
                 127.0.0.1:{port}}}\n",
                dir.join("data").display()
            ),
        )?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("package docker-registry")?;
        let registry = Self {
            port,
            child,
            dir: dir.to_owned(),
        };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > end {
                bail!("docker-registry does not start");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    pub(super) fn domain(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn manifest(&self, dir: &Path, repository: &str, tag: &str) -> Result<Value> {
        let file = dir.join("fetched.json");
        shell(&format!(
            "curl -sf -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' -o {} \
             http://{}/v2/{repository}/manifests/{tag}",
            file.display(),
            self.domain()
        ))?;
        Ok(serde_json::from_slice(&fs::read(file)?)?)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
