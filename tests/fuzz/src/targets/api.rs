//! What clients and administrators send.

use gantry_model::lenient;
use gantry_plugin_host::DriversConfig;
use gantry_sys::caps::CapSet;
use gantry_sys::cgroup::DeviceRule;
use gantry_sys::seccomp::{Arch, DEFAULT_PROFILE, Profile, ResolveFor, compile};
use gantry_wire::{ContainerCreateRequest, Filters};

use super::{bytes, text};
use crate::Target;

pub(super) const CREATE: Target = Target {
    name: "create",
    run: |input| {
        if let Ok(request) = lenient::from_slice::<ContainerCreateRequest>(input) {
            let _ = format!("{request:?}");
        }
    },
    seeds: || {
        bytes(&[
            r#"{"Image":"busybox","Cmd":["sh"],"Env":["A=b"],"ExposedPorts":{"80/tcp":{}},"HostConfig":{"Binds":["/a:/b:ro"],"PortBindings":{"80/tcp":[{"HostIp":"::1","HostPort":"8080-8090"}]},"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3},"Memory":1e9,"Mounts":[{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":5}}],"LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}}},"NetworkingConfig":{"EndpointsConfig":{"n":{"Aliases":["x"],"IPAMConfig":{"IPv4Address":"10.0.0.5"}}}}}"#,
        ])
    },
    words: &[
        "HostConfig",
        "PortBindings",
        "Mounts",
        "null",
        "EndpointsConfig",
        "Healthcheck",
    ],
    rounds: 10_000,
};
pub(super) const FILTERS: Target = Target {
    name: "filters",
    run: |input| {
        let _ = Filters::parse(&text(input));
    },
    seeds: || {
        bytes(&[
            r#"{"label":["a=b","c"],"status":{"running":true,"exited":false}}"#,
            "",
        ])
    },
    words: &["label", "status", "true", "{\"a\":{"],
    rounds: 50_000,
};
pub(super) const SECCOMP: Target = Target {
    name: "seccomp",
    run: seccomp,
    seeds: || {
        bytes(&[
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]}],"syscalls":[{"names":["read","socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}],"includes":{"minKernel":"4.8","caps":["CAP_SYS_ADMIN"]},"excludes":{"arches":["s390x"]}}]}"#,
            DEFAULT_PROFILE,
        ])
    },
    words: &[
        "SCMP_ACT_TRACE",
        "SCMP_CMP_GE",
        "names",
        "args",
        "value",
        "includes",
        "personality",
        "SCMP_ARCH_AARCH64",
    ],
    rounds: 1_500,
};
pub(super) const DEVICES: Target = Target {
    name: "devices",
    run: |input| {
        let _ = DeviceRule::parse(&text(input), true);
    },
    seeds: || bytes(&["c 1:3 rwm", "a *:* m", "b 8:* r"]),
    words: &["*", ":", " rwm"],
    rounds: 50_000,
};
pub(super) const DRIVERS: Target = Target {
    name: "drivers",
    run: |input| {
        if let Ok(value) = serde_json::from_slice(input)
            && let Ok(config) = DriversConfig::parse(&value)
        {
            config.routes().expect("routes were checked");
        }
    },
    seeds: || {
        bytes(&[
            r#"{"storage":"overlay2","network":{"default":"bridge","bridge":{"isolation":"process","options":{"a":1}}},"registry":{"oci-dir":{"hosts":["a.b","c.d:5/e"],"options":{"root":"/x"}}}}"#,
        ])
    },
    words: &[
        "default",
        "isolation",
        "hosts",
        "options",
        "registry",
        "localhost/",
    ],
    rounds: 20_000,
};

fn seccomp(input: &[u8]) {
    let Ok(profile) = Profile::parse(&text(input)) else {
        return;
    };
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let to = ResolveFor {
            caps: CapSet::default(),
            arch,
            kernel: (6, 1),
        };
        if let Ok(filter) = profile.resolve(to) {
            let _ = compile(&filter, arch);
        }
    }
}
