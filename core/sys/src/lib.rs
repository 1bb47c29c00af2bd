//! The audited system calls: mounts, namespaces, cgroups, netlink, nftables, seccomp.
