//! What a container may do.

use serde_json::{Value, json};

use crate::lab::{Lab, Seen};

const STATUS: &str = "echo caps=$(grep CapEff /proc/self/status | cut -f2); echo nnp=$(grep NoNewPrivs /proc/self/status | cut -f2)
echo seccomp=$(grep ^Seccomp: /proc/self/status | cut -f2)";

/// Docker's fourteen.
const DEFAULT: u64 = 0xa804_25fb;
const NET_ADMIN: u64 = 1 << 12;
const CHOWN: u64 = 1;

fn host(config: Value) -> Value {
    json!({ "HostConfig": config })
}

fn caps(lab: &Lab<'_>, config: Value) -> u64 {
    let words = lab.run(&host(config), STATUS);
    u64::from_str_radix(words.get("caps"), 16).unwrap_or(u64::MAX)
}

/// Capabilities, more and fewer, and all there are.
pub(crate) fn capabilities(lab: &Lab<'_>, seen: &Seen) {
    seen.eq(
        "HostConfig.CapAdd",
        caps(lab, json!({"CapAdd": ["NET_ADMIN"]})),
        DEFAULT | NET_ADMIN,
    );
    seen.eq(
        "HostConfig.CapAdd",
        caps(lab, json!({"CapAdd": ["cap_net_admin"]})),
        DEFAULT | NET_ADMIN,
    );
    seen.eq(
        "HostConfig.CapDrop",
        caps(lab, json!({"CapDrop": ["CAP_CHOWN"]})),
        DEFAULT & !CHOWN,
    );
    seen.eq(
        "HostConfig.CapDrop",
        caps(lab, json!({"CapDrop": ["ALL"], "CapAdd": ["CHOWN"]})),
        CHOWN,
    );
    let privileged = lab.run(&host(json!({"Privileged": true})), &format!("{STATUS}; test -e /dev/kmsg && echo kmsg=yes
mount -o remount,rw /sys && echo sys=rw; echo masked=$(grep -c ' /proc/interrupts ' /proc/self/mountinfo)"));
    let engine = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let all = engine
        .lines()
        .find_map(|l| l.strip_prefix("CapBnd:"))
        .unwrap_or_default()
        .trim()
        .to_owned();
    seen.eq(
        "HostConfig.Privileged",
        privileged.get("caps"),
        all.as_str(),
    );
    seen.eq(
        "HostConfig.Privileged",
        (privileged.get("seccomp"), privileged.get("kmsg")),
        ("0", "yes"),
    );
    seen.eq(
        "HostConfig.Privileged",
        (privileged.get("sys"), privileged.get("masked")),
        ("rw", "0"),
    );
    for (field, words) in [
        ("CapAdd", "invalid CapAdd: unknown capability: \"CAP_FLY\""),
        (
            "CapDrop",
            "invalid CapDrop: unknown capability: \"CAP_FLY\"",
        ),
    ] {
        let reply = lab.refusal(&host(json!({field: ["FLY"]})));
        seen.refused(&format!("HostConfig.{field}"), reply, 400, words);
    }
}

/// What is hidden, and what cannot be written.
pub(crate) fn paths(lab: &Lab<'_>, seen: &Seen) {
    let script = "touch /x 2>/dev/null && echo root=rw; test -s /etc/passwd && echo passwd=seen; touch /tmp/x 2>/dev/null && echo tmp=rw
ls /proc/acpi >/dev/null 2>&1 && echo acpi=$(ls /proc/acpi | wc -l); echo interrupts=$(stat -c %t:%T /proc/interrupts)
(echo 0 > /proc/sys/vm/swappiness) 2>/dev/null && echo sysctl=rw; touch /dev/shm/x && echo shm=rw; true";
    let plain = lab.run(&host(json!({})), script);
    seen.eq("HostConfig.ReadonlyRootfs", plain.get("root"), "rw");
    seen.eq("HostConfig.MaskedPaths", plain.get("interrupts"), "1:3");
    seen.eq("HostConfig.ReadonlyPaths", plain.get("sysctl"), "");
    let strict = lab.run(&host(json!({"ReadonlyRootfs": true, "MaskedPaths": ["/etc/passwd"], "ReadonlyPaths": ["/tmp"]})), script);
    seen.eq(
        "HostConfig.ReadonlyRootfs",
        (strict.get("root"), strict.get("shm")),
        ("", "rw"),
    );
    seen.eq(
        "HostConfig.MaskedPaths",
        (strict.get("passwd"), strict.get("interrupts")),
        ("", "0:0"),
    );
    let only = lab.run(&host(json!({"ReadonlyPaths": ["/tmp"]})), script);
    seen.eq(
        "HostConfig.ReadonlyPaths",
        (only.get("tmp"), only.get("root")),
        ("", "rw"),
    );
    let none = lab.run(
        &host(json!({"MaskedPaths": [], "ReadonlyPaths": []})),
        "echo interrupts=$(stat -c %t:%T /proc/interrupts)
echo proc=$(grep -c ' /proc/sys ' /proc/self/mountinfo)",
    );
    seen.eq("HostConfig.MaskedPaths", none.get("interrupts"), "0:0");
    seen.eq("HostConfig.ReadonlyPaths", none.get("proc"), "0");
}

/// Security options and kernel parameters.
pub(crate) fn options(lab: &Lab<'_>, seen: &Seen) {
    let plain = lab.run(&host(json!({})), STATUS);
    seen.eq(
        "HostConfig.SecurityOpt",
        (plain.get("nnp"), plain.get("seccomp")),
        ("0", "2"),
    );
    let asked = lab.run(
        &host(json!({"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]})),
        STATUS,
    );
    seen.eq(
        "HostConfig.SecurityOpt",
        (asked.get("nnp"), asked.get("seccomp")),
        ("1", "0"),
    );
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]});
    let own = lab.run(
        &host(json!({"SecurityOpt": [format!("seccomp={profile}")]})),
        "echo mkdir=$(mkdir /tmp/d 2>&1)",
    );
    seen.holds(
        "HostConfig.SecurityOpt",
        own.get("mkdir").contains("No space left"),
        own.get("mkdir"),
    );
    for (option, words) in [
        ("wat", "invalid --security-opt 1: \"wat\""),
        ("wat=1", "invalid --security-opt 2: \"wat=1\""),
        (
            "no-new-privileges=wat",
            "invalid --security-opt 2: \"no-new-privileges=wat\"",
        ),
    ] {
        let reply = lab.refusal(&json!({"Cmd": ["true"], "HostConfig": {"SecurityOpt": [option]}}));
        seen.refused("HostConfig.SecurityOpt", reply, 400, words);
    }
    let sysctls = json!({"net.ipv4.ip_forward": "0", "kernel.msgmax": "5001"});
    let inside = lab.run(&host(json!({"Sysctls": sysctls})), "echo forward=$(cat /proc/sys/net/ipv4/ip_forward); echo msgmax=$(cat /proc/sys/kernel/msgmax)");
    seen.eq(
        "HostConfig.Sysctls",
        (inside.get("forward"), inside.get("msgmax")),
        ("0", "5001"),
    );
    for (config, words) in [
        (
            json!({"Sysctls": {"kernel.pid_max": "5000"}}),
            "kernel.pid_max",
        ),
        (
            json!({"NetworkMode": "host", "Sysctls": {"net.ipv4.ip_default_ttl": "64"}}),
            "not allowed in host network namespace",
        ),
        (
            json!({"IpcMode": "host", "Sysctls": {"kernel.msgmax": "8192"}}),
            "is not allowed in the hosts ipc namespace",
        ),
    ] {
        let (status, said) = lab.refusal(&json!({"Cmd": ["true"], "HostConfig": config}));
        seen.holds(
            "HostConfig.Sysctls",
            status >= 400 && said.contains(words),
            format!("{status} {said}"),
        );
    }
}
