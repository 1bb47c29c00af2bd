//! Which kernel settings a container may have: those of namespaces of its own. Anything else would be the host's.

use super::{NamespaceMode, Namespaces, SpecError};

/// Settings of an IPC namespace, beside `fs.mqueue.*`; see `ipc_namespaces(7)`.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Checks a setting, in runc's words.
///
/// # Errors
/// One that is not of a namespace of the container's own.
pub fn check(name: &str, namespaces: &Namespaces) -> Result<(), SpecError> {
    let refused = |why: &str| Err(SpecError::Invalid(format!("sysctl {name:?} {why}")));
    let dotted = normal(name);
    // It becomes a path below /proc/sys.
    if name.contains("..") {
        return refused("is not in a separate kernel namespace");
    }
    if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        return match namespaces.ipc {
            NamespaceMode::Host => refused("is not allowed in the hosts ipc namespace"),
            _ => Ok(()),
        };
    }
    if dotted.starts_with("net.") {
        return match namespaces.network {
            NamespaceMode::Host => refused("not allowed in host network namespace"),
            _ => Ok(()),
        };
    }
    if namespaces.uts != NamespaceMode::Host {
        match dotted.as_str() {
            "kernel.domainname" => return Ok(()),
            "kernel.hostname" => {
                return refused("is not allowed as it conflicts with the OCI \"hostname\" field");
            }
            _ => {}
        }
    }
    refused("is not in a separate kernel namespace")
}

/// As sysctl(8) understands names: whichever of `.` and `/` comes first separates, the other is part of a word.
fn normal(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_belongs_to_the_container() {
        let own = Namespaces::default();
        let host = Namespaces {
            ipc: NamespaceMode::Host,
            network: NamespaceMode::Host,
            uts: NamespaceMode::Host,
            ..Namespaces::default()
        };
        let words = |name: &str, spaces: &Namespaces| {
            check(name, spaces).map_or_else(|e| e.to_string(), |()| "ok".into())
        };
        for name in [
            "net.ipv4.ip_forward",
            "net/ipv4/ip_forward",
            "kernel.sem",
            "fs.mqueue.msg_max",
            "kernel.domainname",
        ] {
            assert_eq!(words(name, &own), "ok", "{name}");
            assert_ne!(words(name, &host), "ok", "{name}");
        }
        assert_eq!(
            words("net.ipv4.ip_forward", &host),
            "sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace"
        );
        assert_eq!(
            words("kernel/msgmax", &host),
            "sysctl \"kernel/msgmax\" is not allowed in the hosts ipc namespace"
        );
        for name in [
            "kernel.pid_max",
            "vm.swappiness",
            "",
            "net",
            "net/../kernel/pid_max",
            "/net/x",
        ] {
            assert_eq!(
                words(name, &own),
                format!("sysctl {name:?} is not in a separate kernel namespace")
            );
        }
        assert!(words("kernel.hostname", &own).contains("conflicts"));
    }
}
