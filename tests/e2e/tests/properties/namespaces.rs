//! Whose namespaces a container is in.

use serde_json::json;

use crate::lab::{Lab, Seen, host, namespace};

/// Own ones, and the host's.
pub(crate) fn own_and_host(lab: &Lab<'_>, seen: &Seen) {
    let own = lab.hold(&host(
        json!({"IpcMode": "private", "CgroupnsMode": "private"}),
    ));
    for (property, kind) in [
        ("IpcMode", "ipc"),
        ("PidMode", "pid"),
        ("UTSMode", "uts"),
        ("NetworkMode", "net"),
        ("CgroupnsMode", "cgroup"),
    ] {
        let differs = own.namespace(kind) != namespace("self", kind);
        seen.holds(
            &format!("HostConfig.{property}"),
            differs,
            "a namespace of its own",
        );
    }
    let inside = own.exec("echo groups=$(cut -d: -f3 /proc/self/cgroup | sort -u)");
    seen.eq("HostConfig.CgroupnsMode", inside.get("groups"), "/");
    let shared = lab.hold(&host(
        json!({"NetworkMode": "host", "IpcMode": "host", "PidMode": "host", "UTSMode": "host",
        "UsernsMode": "host", "CgroupnsMode": "host"}),
    ));
    for (property, kind) in [
        ("IpcMode", "ipc"),
        ("PidMode", "pid"),
        ("UTSMode", "uts"),
        ("NetworkMode", "net"),
        ("UsernsMode", "user"),
        ("CgroupnsMode", "cgroup"),
    ] {
        let property = format!("HostConfig.{property}");
        seen.eq(&property, shared.namespace(kind), namespace("self", kind));
    }
    for (field, words) in [
        ("IpcMode", "nvalid IPC mode: wat"),
        ("PidMode", "nvalid PID mode: wat"),
        ("UTSMode", "nvalid UTS mode: wat"),
        ("UsernsMode", "nvalid user"),
        ("CgroupnsMode", "nvalid cgroup namespace mode: wat"),
    ] {
        let reply = lab.refusal(&host(json!({field: "wat"})));
        seen.refused(&format!("HostConfig.{field}"), reply, 400, words);
    }
    let unknown = lab.refusal(&host(json!({"NetworkMode": "wat"})));
    seen.refused(
        "HostConfig.NetworkMode",
        unknown,
        404,
        "network wat not found",
    );
    let conflict = lab.refusal(&json!({"Hostname": "h", "HostConfig": {"UTSMode": "host"}}));
    seen.refused(
        "HostConfig.UTSMode",
        conflict,
        400,
        "conflicting options: hostname and the UTS mode",
    );
    let none = lab.run(
        &host(json!({"IpcMode": "none"})),
        "echo shm=$(grep -c ' /dev/shm ' /proc/self/mountinfo)",
    );
    seen.eq("HostConfig.IpcMode", none.get("shm"), "0");
}

/// Another container's.
pub(crate) fn shared(lab: &Lab<'_>, seen: &Seen) {
    let donor = lab.hold(&host(
        json!({"IpcMode": "shareable", "NetworkMode": "bridge"}),
    ));
    let mode = format!("container:{}", donor.id);
    let guest = lab.hold(&host(
        json!({"IpcMode": mode, "PidMode": mode, "NetworkMode": mode}),
    ));
    for (property, kind) in [
        ("IpcMode", "ipc"),
        ("PidMode", "pid"),
        ("NetworkMode", "net"),
    ] {
        seen.eq(
            &format!("HostConfig.{property}"),
            guest.namespace(kind),
            donor.namespace(kind),
        );
    }
    guest.exec("echo x > /dev/shm/both");
    let there = donor.exec("test -e /dev/shm/both && echo there=yes");
    seen.eq("HostConfig.IpcMode", there.get("there"), "yes");
    let private = lab.hold(&host(json!({"IpcMode": "private"})));
    let reply = lab.refusal(&host(
        json!({"IpcMode": format!("container:{}", private.id)}),
    ));
    seen.refused("HostConfig.IpcMode", reply, 409, "non-shareable IPC");
    let published =
        lab.refusal(&json!({"HostConfig": {"NetworkMode": mode, "PublishAllPorts": true}}));
    let words = "conflicting options: port publishing and the container type network mode";
    seen.refused("HostConfig.NetworkMode", published, 400, words);
    // Not found means a missing image to clients, and they pull it: only a start may say so.
    for (field, status) in [("IpcMode", 400), ("PidMode", 400), ("NetworkMode", 404)] {
        let reply = lab.refusal(&host(json!({field: "container:nope"})));
        seen.refused(
            &format!("HostConfig.{field}"),
            reply,
            status,
            "No such container: nope",
        );
    }
    let later = lab.create(&host(json!({"NetworkMode": "container:nope"})));
    let mode = later.inspect()["HostConfig"]["NetworkMode"].take();
    seen.eq("HostConfig.NetworkMode", mode, "container:nope");
}
