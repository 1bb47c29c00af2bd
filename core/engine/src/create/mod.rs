//! Making a container.

pub(crate) mod egress;
pub(crate) mod merge;
pub(crate) mod mounts;
pub(crate) mod ports;
pub(crate) mod validate;

mod defaults;
pub(crate) mod images;
mod volumes;

use std::collections::BTreeMap;

use gantry_image::Image;
use gantry_model::container::{ContainerConfig, EndpointSettings, HostConfig, NetworkingConfig};
use gantry_model::{ContainerId, Timestamp};
use gantry_wire as wire;

use crate::container::Container;
use crate::container::index::Reserved;
use crate::container::record::{Record, State};
use crate::engine::blocking;
use crate::objects::parse_platform;
use crate::security::{self, Security};
use crate::{Engine, EngineError, ErrorKind, Result, names};

/// Tries to draw a name that is free.
const NAME_TRIES: u32 = 20;

/// A container that a request names and that there is not: clients take 404 for a missing image, and pull it.
fn in_request(mut error: EngineError) -> EngineError {
    if error.kind == ErrorKind::NotFound {
        error.kind = ErrorKind::BadRequest;
    }
    error
}

/// How many bytes a container's own files may take.
pub(crate) fn quota(record: &Record) -> Result<Option<u64>> {
    let Some(text) = record.host_config.storage_opt.get("size") else {
        return Ok(None);
    };
    let bytes = defaults::bytes(text);
    bytes
        .map(Some)
        .ok_or_else(|| EngineError::bad_request(format!("invalid size: '{text}'")))
}

impl Engine {
    /// Makes a container. Nothing is left of one that could not be made.
    ///
    /// # Errors
    /// `No such image: x` (404), name conflicts (409), requests that make no sense (400).
    pub async fn container_create(
        &self,
        name: Option<&str>,
        platform: Option<&str>,
        request: wire::ContainerCreateRequest,
    ) -> Result<wire::ContainerCreateReply> {
        let wire::ContainerCreateRequest {
            mut config,
            mut host_config,
            networking_config,
        } = request;
        let name = name
            .filter(|n| !n.is_empty())
            .map(names::check)
            .transpose()?;
        let image = self.image_for(&config, platform).await?;
        validate::network_mode(&config, &host_config)?;
        merge::merge(&mut config, &image.config.config);
        validate::config(&config)?;
        self.defaults(&mut host_config)?;
        let facts = self.services.runtime.host();
        let options = host_config.security_opt.as_deref().unwrap_or_default();
        Security::parse(options, facts.apparmor)?;
        security::devices(&host_config, !self.config.load().cdi_spec_dirs.is_empty())?;
        security::device_rules(&host_config)?;
        validate::host_config(&host_config, facts)?;
        let mut warnings = validate::adjust(&mut host_config, facts);
        warnings.extend(validate::network_warnings(&host_config));
        self.check_links(&host_config)?;
        ports::requests(&config, &host_config)?;
        egress::list(&config, &host_config)?;
        gantry_logs::check(&host_config.log_config.kind, &host_config.log_config.config)?;
        let wanted = mounts::collect(&config, &host_config, |from| {
            Ok(self.find(from).map_err(in_request)?.record())
        })?;
        let id = ContainerId::generate();
        self.host_name(&mut config, &host_config, &id);
        let networks = self.network_wishes(&config, &host_config, &networking_config)?;
        self.check_wishes(&networks, &host_config)?;
        let (name, reserved) = self.take_name(name, &id)?;
        let (userns, _held) = self.choose_userns(&id, &host_config)?;
        if userns.is_none() && wanted.iter().any(|w| w.point.is_idmapped()) {
            return Err(EngineError::bad_request(
                "invalid mode: idmap: the container has the host's users",
            ));
        }
        let record = Record {
            id: id.clone(),
            name,
            created: Timestamp::now(),
            image: image.id.clone(),
            platform: image.config.os.clone(),
            config,
            host_config,
            storage_driver: String::new(),
            networks,
            mounts: Vec::new(),
            restart_count: 0,
            manually_stopped: false,
            userns,
            state: State::default(),
        };
        if record.argv().is_empty() {
            return Err(EngineError::bad_request("no command specified"));
        }
        self.check_requirements(&record)?;
        let record = self.make(record, wanted).await?;
        reserved.keep();
        self.containers.insert(Container::new(record.clone()));
        self.tell(&record, "create");
        Ok(wire::ContainerCreateReply {
            id: id.into(),
            warnings,
        })
    }

    /// Root file system, volumes and record; all or none of it.
    async fn make(&self, mut record: Record, wanted: Vec<mounts::Wanted>) -> Result<Record> {
        let outcome = self.make_parts(&mut record, wanted).await;
        if outcome.is_err() {
            self.unmake(&record).await;
        }
        outcome.map(|()| record)
    }

    async fn make_parts(&self, record: &mut Record, wanted: Vec<mounts::Wanted>) -> Result<()> {
        let size = quota(record)?;
        let directory = self.container_dir(&record.id);
        let (images, id, image) = (
            self.services.images.clone(),
            record.id.clone(),
            record.image.clone(),
        );
        let root = blocking(move || {
            std::fs::create_dir_all(&directory)
                .map_err(|e| EngineError::io(format!("make {}", directory.display()), &e))?;
            images
                .prepare_container(id.as_str(), &image, size)
                .map_err(EngineError::from)
        })
        .await??;
        record.storage_driver = root.driver;
        self.make_mounts(record, wanted, &root.plan).await?;
        self.records.create(record).await
    }

    /// Undoes a creation that failed; what cannot be undone now is found by the next start.
    async fn unmake(&self, record: &Record) {
        self.drop_volumes(record, true).await;
        if let Err(error) = self.drop_views(record).await {
            tracing::warn!(container = %record.id, %error, "a failed creation left a view of an image behind");
        }
        let (images, id, driver) = (
            self.services.images.clone(),
            record.id.clone(),
            record.storage_driver.clone(),
        );
        let directory = self.container_dir(&record.id);
        let outcome = blocking(move || {
            if !driver.is_empty() {
                images.remove_container(&driver, id.as_str())?;
            }
            match std::fs::remove_dir_all(&directory) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(EngineError::io(directory.display(), &e))
                }
                _ => Ok(()),
            }
        })
        .await;
        if let Err(error) | Ok(Err(error)) = outcome {
            tracing::warn!(container = %record.id, %error, "a failed creation left something behind");
        }
    }

    async fn image_for(&self, config: &ContainerConfig, platform: Option<&str>) -> Result<Image> {
        if config.image.is_empty() {
            return Err(EngineError::bad_request(
                "no image specified: config.Image cannot be empty",
            ));
        }
        let (images, name) = (self.services.images.clone(), config.image.clone());
        let platform = parse_platform(platform)?;
        Ok(blocking(move || images.get(&name, platform.as_ref())).await??)
    }

    fn take_name(&self, given: Option<&str>, id: &ContainerId) -> Result<(String, Reserved<'_>)> {
        if let Some(name) = given {
            return Ok((name.to_owned(), self.containers.reserve(name, id)?));
        }
        for attempt in 0..NAME_TRIES {
            // Identifiers are random: fresh ones are as good a source as any.
            let seed = ContainerId::generate();
            let seed = u64::from_str_radix(&seed.as_str()[..16], 16).unwrap_or(0);
            let name = names::draw(attempt, seed);
            if let Ok(reserved) = self.containers.reserve(&name, id) {
                return Ok((name, reserved));
            }
        }
        let name = id.short().to_owned();
        let reserved = self.containers.reserve(&name, id)?;
        Ok((name, reserved))
    }

    /// The name a container without one is given inside.
    fn host_name(&self, config: &mut ContainerConfig, host: &HostConfig, id: &ContainerId) {
        if !config.hostname.is_empty() {
            return;
        }
        let of_host = host.network_mode == "host" || host.uts_mode == "host";
        config.hostname = match of_host {
            true => self.services.runtime.host().hostname.clone(),
            false => id.short().to_owned(),
        };
    }

    /// Which networks are wanted, by the network's name where it is known already.
    fn network_wishes(
        &self,
        config: &ContainerConfig,
        host: &HostConfig,
        networking: &NetworkingConfig,
    ) -> Result<BTreeMap<String, EndpointSettings>> {
        let mode = host.network_mode.as_str();
        if mode.starts_with("container:") || config.network_disabled {
            return Ok(BTreeMap::new());
        }
        let known = |name: &str| {
            let name = if name == "default" { "bridge" } else { name };
            match self.services.networks.get(name) {
                Ok(network) => (network.name, network.id.to_string()),
                Err(_) => (name.to_owned(), String::new()),
            }
        };
        let mut wishes = BTreeMap::new();
        for (name, wish) in &networking.endpoints_config {
            let (name, network_id) = known(name);
            let wish = wish.clone().unwrap_or_default();
            wishes.insert(name, EndpointSettings { network_id, ..wish });
        }
        if matches!(mode, "host" | "none") {
            wishes.retain(|name, _| name == mode);
        }
        let (name, network_id) = known(mode);
        let main = wishes.entry(name).or_default();
        main.network_id = network_id;
        if main.mac_address.is_empty() {
            main.mac_address.clone_from(&config.mac_address);
        } else if !config.mac_address.is_empty() && config.mac_address != main.mac_address {
            return Err(EngineError::bad_request(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty",
            ));
        }
        Ok(wishes)
    }
}
