//! From the configuration to what each service is opened with.

mod network;

pub(crate) use network::network;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use gantry_driver_api::Kind;
use gantry_driver_api::registry::Proxies;
use gantry_driver_registry::DriverRegistry;
use gantry_engine::{EngineConfig, SeccompDefault, UsernsConfig};
use gantry_plugin_host::DriversConfig;
use gantry_runtime::OciRuntime;
use gantry_wire::system;

use crate::config::Config;
use crate::paths::{self, Place};
use crate::registries;
use crate::subid::Databases;

/// Defaults of containers and what `info` shows.
pub(crate) fn engine(config: &Config, place: &Place) -> anyhow::Result<EngineConfig> {
    let mut engine = EngineConfig::new(
        place.data_root.clone(),
        place.exec_root.clone(),
        place.boot_id.clone(),
    );
    engine.engine_id.clone_from(&place.engine_id);
    engine.labels.clone_from(&config.labels);
    engine.debug = config.debug;
    engine.experimental = config.experimental;
    engine.default_runtime.clone_from(&config.default_runtime);
    engine.runtimes = runtimes(config)?
        .into_iter()
        .map(|(name, runtime)| {
            let shown = system::Runtime {
                path: runtime.path.to_string_lossy().into_owned(),
                runtime_args: runtime.args,
                ..system::Runtime::default()
            };
            (name, shown)
        })
        .chain([("gantry".to_owned(), system::Runtime::default())])
        .collect();
    if engine
        .runtime()
        .is_some_and(|name| !engine.runtimes.contains_key(name))
    {
        bail!(
            "specified default runtime '{}' does not exist",
            config.default_runtime
        );
    }
    engine.live_restore = config.live_restore != Some(false);
    engine.shutdown_timeout = config.shutdown_timeout;
    engine.registry = registries::shown(config)?;
    engine.address_pools = config
        .default_address_pools
        .iter()
        .map(|pool| system::AddressPool {
            base: pool.base.clone(),
            size: pool.size.into(),
        })
        .collect();
    engine.proxies = proxies(config).map(|proxy| registries::masked(&proxy));
    container_defaults(config, &mut engine)?;
    Ok(engine)
}

/// What containers get that do not say otherwise.
fn container_defaults(config: &Config, engine: &mut EngineConfig) -> anyhow::Result<()> {
    gantry_engine::check_log_driver(&config.log_driver, &config.log_opts)
        .context("failed to set log opts")?;
    engine.log_driver.clone_from(&config.log_driver);
    engine.log_opts.clone_from(&config.log_opts);
    engine.ipc_mode.clone_from(&config.default_ipc_mode);
    engine
        .cgroupns_mode
        .clone_from(&config.default_cgroupns_mode);
    if let Some(size) = config.shm_size()? {
        engine.shm_size = i64::try_from(size).context("default-shm-size")?;
    }
    engine.ulimits = ulimits(config);
    engine.stop_timeout = config.default_stop_timeout;
    engine.init = config.init;
    engine.init_path = match config.init_path.as_str() {
        "" => paths::init(),
        path => Some(path.into()),
    };
    engine.no_new_privileges = config.no_new_privileges;
    engine.seccomp = seccomp(config)?;
    engine.userns = userns(config, Path::new("/etc"))?;
    engine.cdi_spec_dirs = cdi_dirs(config).unwrap_or(engine.cdi_spec_dirs.clone());
    Ok(())
}

/// The proxies for HTTP and HTTPS, and what is reached without: flags, then the file, then the environment.
fn proxies(config: &Config) -> [String; 3] {
    let proxy = |plain: &str, nested: &str, variable: &str| {
        let given = if plain.is_empty() { nested } else { plain };
        match given {
            "" => [variable.to_owned(), variable.to_lowercase()]
                .iter()
                .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
                .unwrap_or_default(),
            given => given.to_owned(),
        }
    };
    let nested = &config.proxies;
    [
        proxy(&config.http_proxy, &nested.http_proxy, "HTTP_PROXY"),
        proxy(&config.https_proxy, &nested.https_proxy, "HTTPS_PROXY"),
        proxy(&config.no_proxy, &nested.no_proxy, "NO_PROXY"),
    ]
}

fn ulimits(config: &Config) -> Vec<gantry_wire::spec::Ulimit> {
    config
        .default_ulimits
        .iter()
        .map(|(name, limit)| gantry_wire::spec::Ulimit {
            name: name.clone(),
            ..limit.clone()
        })
        .collect()
}

fn seccomp(config: &Config) -> anyhow::Result<SeccompDefault> {
    Ok(match config.seccomp_profile.as_str() {
        "" | "builtin" => SeccompDefault::Builtin,
        "unconfined" => SeccompDefault::Unconfined,
        path => SeccompDefault::Profile(
            std::fs::read_to_string(path)
                .with_context(|| format!("opening seccomp profile ({path}) failed"))?,
        ),
    })
}

/// Where CDI specifications are looked for; `None`: where the engine does by itself. An empty directory name, or the
/// feature `cdi` switched off, is how dockerd is told not to look anywhere.
fn cdi_dirs(config: &Config) -> Option<Vec<PathBuf>> {
    let off = config.features.get("cdi").is_some_and(|on| match on {
        serde_json::Value::Bool(on) => !on,
        word => word.as_str() == Some("false"),
    });
    if off {
        return Some(Vec::new());
    }
    let dirs = config.cdi_spec_dirs.iter().filter(|dir| !dir.is_empty());
    (!config.cdi_spec_dirs.is_empty()).then(|| dirs.map(PathBuf::from).collect())
}

fn userns(config: &Config, etc: &Path) -> anyhow::Result<UsernsConfig> {
    let databases = Databases { etc };
    let mut userns = UsernsConfig::default();
    if let Some(pool) = databases.pool()? {
        userns.pool = pool;
    }
    if !config.userns_remap.is_empty() {
        userns.remap = Some(databases.remap(&config.userns_remap)?);
        if gantry_sys::host::kernel_version() < (5, 19) {
            bail!("userns-remap needs ID-mapped mounts: Linux 5.19 or later");
        }
    }
    Ok(userns)
}

/// Foreign runtimes by name: those of the configuration, and `runc` where it is installed.
pub(crate) fn runtimes(config: &Config) -> anyhow::Result<BTreeMap<String, OciRuntime>> {
    let mut runtimes = BTreeMap::new();
    if let Some(path) = paths::in_path("runc") {
        runtimes.insert(
            "runc".to_owned(),
            OciRuntime {
                path,
                args: Vec::new(),
            },
        );
    }
    for (name, entry) in &config.runtimes {
        if name == "gantry" {
            bail!("runtime name 'gantry' is reserved");
        }
        if !entry.runtime_type.is_empty() {
            bail!(
                "runtime {name}: runtimeType is not supported: this engine uses OCI runtimes by path"
            );
        }
        if entry.path.is_empty() {
            bail!("runtime {name}: path is missing");
        }
        let runtime = OciRuntime {
            path: PathBuf::from(&entry.path),
            args: entry.runtime_args.clone(),
        };
        runtimes.insert(name.clone(), runtime);
    }
    Ok(runtimes)
}

/// Settings of the drivers; `storage-driver` and `drivers.storage` must not contradict each other.
pub(crate) fn drivers(config: &Config) -> anyhow::Result<DriversConfig> {
    let value = match &config.drivers {
        serde_json::Value::Null => serde_json::json!({}),
        value => value.clone(),
    };
    let mut drivers = DriversConfig::parse(&value)?;
    if !config.storage_driver.is_empty() {
        let wanted = DriverRegistry::canonical(Kind::Storage, &config.storage_driver);
        if let Some(other) = drivers.kind(Kind::Storage).default
            && other != wanted
        {
            bail!(
                "storage-driver is {:?}, but drivers.storage is {other:?}",
                config.storage_driver
            );
        }
        drivers.set_default(Kind::Storage, wanted);
    }
    Ok(drivers)
}

/// The image service.
pub(crate) fn images(config: &Config) -> anyhow::Result<gantry_image::Settings> {
    let count = |n: i64| usize::try_from(n).unwrap_or(1).max(1);
    let [http, https, except] = proxies(config);
    Ok(gantry_image::Settings {
        proxies: Proxies {
            http,
            https,
            except,
        },
        mirrors: registries::mirrors(config)?,
        insecure_registries: registries::insecure(config)?,
        certs_dirs: registries::config_dirs(config),
        max_downloads: count(config.max_concurrent_downloads),
        max_uploads: count(config.max_concurrent_uploads),
        max_attempts: u32::try_from(config.max_download_attempts).unwrap_or(u32::MAX),
        ..gantry_image::Settings::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_drivers_must_agree() {
        let config = |flag: &str, key: serde_json::Value| Config {
            storage_driver: flag.into(),
            drivers: key,
            ..Config::default()
        };
        let storage = |name: &str| serde_json::json!({ "storage": name });
        let chosen = |c: &Config| drivers(c).map(|d| d.kind(Kind::Storage).default);
        let both = config("overlay2", storage("overlayfs"));
        assert_eq!(chosen(&both).unwrap().as_deref(), Some("overlayfs"));
        assert!(chosen(&config("native", storage("overlayfs"))).is_err());
        assert_eq!(chosen(&config("", serde_json::Value::Null)).unwrap(), None);
    }

    #[test]
    fn devices_by_name_can_be_switched_off() {
        let config = |dirs: &[&str], features: serde_json::Value| Config {
            cdi_spec_dirs: dirs.iter().map(|&d| d.to_owned()).collect(),
            features: serde_json::from_value(features).unwrap(),
            ..Config::default()
        };
        let none = serde_json::json!({});
        assert_eq!(cdi_dirs(&config(&[], none.clone())), None);
        assert_eq!(cdi_dirs(&config(&[""], none.clone())), Some(Vec::new()));
        assert_eq!(
            cdi_dirs(&config(&["/a"], none)),
            Some(vec![PathBuf::from("/a")])
        );
        for off in [serde_json::json!(false), serde_json::json!("false")] {
            let features = serde_json::json!({ "cdi": off });
            assert_eq!(cdi_dirs(&config(&["/a"], features)), Some(Vec::new()));
        }
    }

    #[test]
    fn runtimes_have_a_path() {
        let mut config = Config::default();
        let entry = crate::config::RuntimeEntry {
            path: String::new(),
            runtime_args: Vec::new(),
            runtime_type: String::new(),
        };
        config.runtimes.insert("x".into(), entry);
        assert!(runtimes(&config).is_err());
    }
}
