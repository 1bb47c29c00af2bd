//! Devices of the host.

use serde_json::json;

use crate::lab::{Lab, Seen};

/// Nodes, their names and permissions; rules for nodes that a container makes itself.
pub(crate) fn nodes_and_rules(lab: &Lab<'_>, seen: &Seen) {
    let reads = "head -c 3 /dev/mine 2>/dev/null | wc -c | tr -d ' '";
    let script = format!(
        "echo read=$({reads}); echo number=$(stat -c %t:%T /dev/mine); echo x > /dev/mine 2>/dev/null && echo wrote=yes
mknod /tmp/fuse c 10 229; (exec 3<>/tmp/fuse) 2>/dev/null && echo fuse=open; true"
    );
    let device = json!({"PathOnHost": "/dev/zero", "PathInContainer": "/dev/mine", "CgroupPermissions": "rm"});
    // 1:5 is everybody's: a device that nobody has by default tells more.
    let fuse = json!({"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/mine", "CgroupPermissions": "r"});
    let inside = lab.run(&json!({"HostConfig": {"Devices": [device]}}), &script);
    for property in [
        "HostConfig.Devices",
        "DeviceMapping.PathOnHost",
        "DeviceMapping.PathInContainer",
    ] {
        seen.eq(
            property,
            (inside.get("read"), inside.get("number")),
            ("3", "1:5"),
        );
    }
    seen.eq("HostConfig.DeviceCgroupRules", inside.get("fuse"), "");
    let ruled = lab.run(
        &json!({"HostConfig": {"DeviceCgroupRules": ["c 10:229 rwm"]}}),
        &script,
    );
    seen.eq("HostConfig.DeviceCgroupRules", ruled.get("fuse"), "open");
    let script = "(exec 3</dev/mine) 2>/dev/null && echo read=yes; (exec 3<>/dev/mine) 2>/dev/null && echo write=yes";
    let read_only = lab.run(
        &json!({"HostConfig": {"Devices": [fuse]}}),
        &format!("{script}; true"),
    );
    seen.eq(
        "DeviceMapping.CgroupPermissions",
        (read_only.get("read"), read_only.get("write")),
        ("yes", ""),
    );
    let refuse = |host: &str, letters: &str| {
        let device =
            json!({"PathOnHost": host, "PathInContainer": "/dev/x", "CgroupPermissions": letters});
        lab.refusal(&json!({"Cmd": ["true"], "HostConfig": {"Devices": [device]}}))
    };
    let gather = "error gathering device information while adding custom device";
    seen.refused(
        "DeviceMapping.PathOnHost",
        refuse("/dev/nope", "r"),
        400,
        &format!("{gather} \"/dev/nope\": no such file or directory"),
    );
    seen.refused(
        "DeviceMapping.PathOnHost",
        refuse("/etc/passwd", "r"),
        400,
        &format!("{gather} \"/etc/passwd\": not a device node"),
    );
    seen.refused(
        "DeviceMapping.CgroupPermissions",
        refuse("/dev/zero", "x"),
        400,
        "invalid device mode: x",
    );
    let rule = lab.refusal(&json!({"Cmd": ["true"], "HostConfig": {"DeviceCgroupRules": ["wat"]}}));
    seen.refused(
        "HostConfig.DeviceCgroupRules",
        rule,
        400,
        "invalid device cgroup rule format: 'wat'",
    );
}

/// Devices that nobody here can give.
pub(crate) fn requests(lab: &Lab<'_>, seen: &Seen) {
    let request = json!({"Driver": "nobody", "Count": -1, "DeviceIDs": ["0"], "Capabilities": [["gpu", "x"]], "Options": {"a": "b"}});
    let (status, said) =
        lab.refusal(&json!({"Cmd": ["true"], "HostConfig": {"DeviceRequests": [request]}}));
    let words = "could not select device driver \"nobody\" with capabilities: [[gpu x]]";
    for property in [
        "HostConfig.DeviceRequests",
        "DeviceRequest.Driver",
        "DeviceRequest.Capabilities",
        "DeviceRequest.Count",
        "DeviceRequest.Options",
    ] {
        seen.holds(
            property,
            status >= 400 && said.contains(words),
            format!("{status} {said}"),
        );
    }
}
