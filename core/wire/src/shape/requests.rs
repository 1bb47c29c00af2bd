//! Requests of older versions.

use crate::{ApiVersion, ContainerCreateRequest, ExecCreateRequest, Filters, UpdateRequest};

const fn v(minor: u16) -> ApiVersion {
    ApiVersion::new(1, minor)
}

/// Takes out of a create request what `version` did not have, and puts in what it implied.
pub fn create_request(version: ApiVersion, request: &mut ContainerCreateRequest) {
    let host = &mut request.host_config;
    if version < v(40) && host.ipc_mode.is_empty() {
        host.ipc_mode = "shareable".into();
    }
    if version < v(41) && host.cgroupns_mode.is_empty() {
        host.cgroupns_mode = "host".into();
    }
    if version < v(42) {
        host.console_size = [0, 0];
    }
    if version < v(43) {
        host.annotations.clear();
    }
    if version < v(44)
        && let Some(health) = &mut request.config.healthcheck
    {
        health.start_interval = 0;
    }
    for mount in host.mounts.iter_mut().flatten() {
        if let Some(bind) = &mut mount.bind_options {
            bind.non_recursive &= version >= v(40);
            bind.create_mountpoint &= version >= v(42);
            bind.read_only_non_recursive &= version >= v(44);
            bind.read_only_force_recursive &= version >= v(44);
        }
        if version < v(45)
            && let Some(volume) = &mut mount.volume_options
        {
            volume.subpath.clear();
        }
        if version < v(46)
            && let Some(tmpfs) = &mut mount.tmpfs_options
        {
            tmpfs.options = None;
        }
    }
}

/// Takes out of an update what `version` does not have.
pub fn update_request(version: ApiVersion, request: &mut UpdateRequest) {
    if version < v(40) {
        request.host_config.pids_limit = None;
    }
    if version >= v(42) {
        request.host_config.kernel_memory = 0;
    }
}

/// Takes out of an exec request what `version` did not have.
pub fn exec_create_request(version: ApiVersion, request: &mut ExecCreateRequest) {
    if version < v(25) {
        request.env = None;
    }
    if version < v(35) {
        request.working_dir.clear();
    }
    if version < v(42) {
        request.console_size = None;
    }
}

/// Before 1.42 a prune of volumes took named ones too, without being asked.
pub fn prune_filters(version: ApiVersion, filters: &mut Filters) {
    if version < v(42) && !filters.contains("all") {
        filters.add("all", "true");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_clients_get_what_they_expect() {
        let sent = br#"{"HostConfig": {"ConsoleSize": [1, 2], "Annotations": {"a": "b"},
            "Mounts": [{"BindOptions": {"NonRecursive": true, "CreateMountpoint": true}}]}}"#;
        let request: ContainerCreateRequest = crate::lenient::from_slice(sent).unwrap();
        let mut newest = request.clone();
        create_request(ApiVersion::MAX, &mut newest);
        assert_eq!(newest, request);
        let mut old = request;
        create_request(v(24), &mut old);
        assert_eq!(old.host_config.cgroupns_mode, "host");
        assert_eq!(old.host_config.console_size, [0, 0]);
        assert!(old.host_config.annotations.is_empty());
        let bind = old.host_config.mounts.unwrap()[0].bind_options.clone();
        assert_eq!(bind, Some(crate::spec::BindOptions::default()));
    }

    #[test]
    fn volume_prunes_once_took_all() {
        let mut filters = Filters::default();
        prune_filters(v(42), &mut filters);
        assert!(filters.is_empty());
        prune_filters(v(41), &mut filters);
        assert_eq!(filters.flag("all"), Ok(Some(true)));
    }
}
