//! Volumes, images and memory.

use serde_json::json;

use crate::lab::{Lab, Seen, Words, host, mounts};

/// Volumes that are made on the way.
pub(crate) fn volumes(lab: &Lab<'_>, seen: &Seen) {
    let options = json!({"Labels": {"a": "b"}, "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=3m"}}});
    let mount =
        json!({"Type": "volume", "Source": "propvol", "Target": "/m", "VolumeOptions": options});
    let inside = lab.run(
        &mounts(json!([mount])),
        "echo size=$(df -k /m | tail -1 | awk '{print $2}')",
    );
    seen.eq("DriverConfig.Options", inside.get("size"), "3072");
    let volume = lab.api("GET", "/v1.51/volumes/propvol", None).1;
    seen.eq(
        "VolumeOptions.Labels",
        &volume["Labels"],
        &json!({"a": "b"}),
    );
    seen.eq("DriverConfig.Name", &volume["Driver"], "local");
    seen.eq(
        "VolumeOptions.DriverConfig",
        &volume["Options"]["type"],
        "tmpfs",
    );
    let copies = |no_copy: bool, name: &str| {
        let mount = json!({"Type": "volume", "Source": name, "Target": "/etc", "VolumeOptions": {"NoCopy": no_copy}});
        lab.run(
            &mounts(json!([mount])),
            "test -e /etc/group && echo group=yes; true",
        )
        .get("group")
        .to_owned()
    };
    seen.eq(
        "VolumeOptions.NoCopy",
        copies(true, "propempty"),
        "".to_owned(),
    );
    seen.eq(
        "Mount.VolumeOptions",
        copies(false, "propfull"),
        "yes".to_owned(),
    );
    lab.engine
        .docker(&["volume", "rm", "propvol", "propempty", "propfull"])
        .ok();
    refused_volumes(lab, seen);
}

/// What is no volume.
fn refused_volumes(lab: &Lab<'_>, seen: &Seen) {
    let driver = json!({"Type": "volume", "Source": "propnone", "Target": "/m", "VolumeOptions": {"DriverConfig": {"Name": "nope"}}});
    let reply = lab.refusal(&mounts(json!([driver])));
    seen.refused("DriverConfig.Name", reply, 404, "plugin \"nope\" not found");
    let anonymous = json!({"Type": "volume", "Target": "/m", "ReadOnly": true});
    let words = "must not set ReadOnly mode when using anonymous volumes";
    seen.refused(
        "Mount.ReadOnly",
        lab.refusal(&mounts(json!([anonymous]))),
        400,
        words,
    );
    let bind = json!({"Type": "volume", "Source": "v1", "Target": "/m", "BindOptions": {}});
    let words = "field BindOptions must not be specified";
    seen.refused(
        "Mount.BindOptions",
        lab.refusal(&mounts(json!([bind]))),
        400,
        words,
    );
}

/// A part of a volume; links in it do not lead out.
pub(crate) fn subpaths(lab: &Lab<'_>, seen: &Seen) {
    let whole = json!([{"Type": "volume", "Source": "propsub", "Target": "/v"}]);
    lab.run(&mounts(whole), "mkdir -p /v/a/b; echo part > /v/a/b/file; ln -s /etc /v/out; ln -s a/b /v/in; echo one > /v/single");
    let part = |subpath: &str| {
        json!({"Cmd": ["sh", "-c", "cat /m/file /m 2>/dev/null; true"],
        "HostConfig": {"Mounts": [{"Type": "volume", "Source": "propsub", "Target": "/m", "VolumeOptions": {"Subpath": subpath}}]}})
    };
    let out = |subpath| lab.create(&part(subpath)).run().out;
    seen.eq("VolumeOptions.Subpath", out("a/b"), "part\n".to_owned());
    seen.eq("VolumeOptions.Subpath", out("in"), "part\n".to_owned());
    seen.eq("VolumeOptions.Subpath", out("single"), "one\n".to_owned());
    for (subpath, words) in [
        ("../x", "subpath must be a relative path within the volume"),
        ("/etc", "subpath must be a relative path within the volume"),
        ("none", "cannot access path"),
        ("out", "cannot access path"),
    ] {
        let (status, said) = lab.refusal(&part(subpath));
        seen.holds(
            "VolumeOptions.Subpath",
            status >= 400 && said.contains(words),
            format!("{subpath}: {status} {said}"),
        );
    }
    let anonymous = json!([{"Type": "volume", "Target": "/m", "VolumeOptions": {"Subpath": "a"}}]);
    let words = "must not set Subpath when using anonymous volumes";
    seen.refused(
        "VolumeOptions.Subpath",
        lab.refusal(&mounts(anonymous)),
        400,
        words,
    );
    lab.engine.docker(&["volume", "rm", "propsub"]).ok();
}

/// Images as read-only file systems.
pub(crate) fn images(lab: &Lab<'_>, seen: &Seen) {
    let script = "test -x /m/bin/busybox && echo whole=yes; touch /m/x 2>/dev/null && echo whole=rw
test -e /part/passwd && echo part=yes; touch /part/x 2>/dev/null && echo part=rw; true";
    let whole = json!({"Type": "image", "Source": "busybox:latest", "Target": "/m"});
    let part = json!({"Type": "image", "Source": "busybox:latest", "Target": "/part", "ImageOptions": {"Subpath": "etc"}});
    let inside: Words = lab.run(&mounts(json!([whole, part])), script);
    seen.eq("Mount.Type", inside.get("whole"), "yes");
    seen.eq("Mount.ImageOptions", inside.get("part"), "yes");
    seen.eq("ImageOptions.Subpath", inside.get("part"), "yes");
    for (property, mount, words) in [
        (
            "Mount.Source",
            json!({"Type": "image", "Source": "nope", "Target": "/m"}),
            "No such image: nope",
        ),
        (
            "Mount.Source",
            json!({"Type": "image", "Target": "/m"}),
            "field Source must not be empty",
        ),
        (
            "ImageOptions.Subpath",
            json!({"Type": "image", "Source": "busybox", "Target": "/m", "ImageOptions": {"Subpath": "../x"}}),
            "subpath must be a relative path within the",
        ),
        (
            "ImageOptions.Subpath",
            json!({"Type": "image", "Source": "busybox", "Target": "/m", "ImageOptions": {"Subpath": "none"}}),
            "cannot access path",
        ),
    ] {
        let (status, said) =
            lab.refusal(&json!({"Cmd": ["true"], "HostConfig": {"Mounts": [mount]}}));
        seen.holds(
            property,
            status >= 400 && said.contains(words),
            format!("{status} {said}"),
        );
    }
}

/// `--tmpfs`, and the long form.
pub(crate) fn memory(lab: &Lab<'_>, seen: &Seen) {
    let script = "echo size=$(df -k /m | tail -1 | awk '{print $2}'); echo mode=$(stat -c %a:%u /m)
cp /bin/busybox /m/ 2>/dev/null && /m/busybox true 2>/dev/null && echo runs=yes; true";
    let short = lab.run(
        &host(json!({"Tmpfs": {"/m": "size=4m,mode=750,uid=5"}})),
        script,
    );
    seen.eq(
        "HostConfig.Tmpfs",
        (short.get("size"), short.get("mode"), short.get("runs")),
        ("4096", "750:5", ""),
    );
    let shown = lab
        .create(&host(json!({"Tmpfs": {"/m": "size=4m"}})))
        .inspect();
    let listed = (&shown["HostConfig"]["Tmpfs"], &shown["Mounts"]);
    seen.eq(
        "HostConfig.Tmpfs",
        listed,
        (&json!({"/m": "size=4m"}), &json!([])),
    );
    let wrong = lab.refusal(&json!({"Cmd": ["true"], "HostConfig": {"Tmpfs": {"/m": "wat=1"}}}));
    seen.holds(
        "HostConfig.Tmpfs",
        wrong.0 >= 400 && wrong.1.contains("wat"),
        format!("{wrong:?}"),
    );
    let options = json!({"SizeBytes": 8 << 20, "Mode": 0o711, "Options": [["exec"]]});
    let long = lab.run(
        &mounts(json!([{"Type": "tmpfs", "Target": "/m", "TmpfsOptions": options}])),
        script,
    );
    seen.eq("TmpfsOptions.SizeBytes", long.get("size"), "8192");
    seen.eq("TmpfsOptions.Mode", long.get("mode"), "711:0");
    seen.eq("TmpfsOptions.Options", long.get("runs"), "yes");
    seen.eq("Mount.TmpfsOptions", long.get("size"), "8192");
    let plain = lab.run(&mounts(json!([{"Type": "tmpfs", "Target": "/m"}])), script);
    seen.eq("TmpfsOptions.Mode", plain.get("mode"), "1777:0");
    seen.eq("TmpfsOptions.Options", plain.get("runs"), "");
    refused_memory(lab, seen);
}

/// What is no file system in memory.
fn refused_memory(lab: &Lab<'_>, seen: &Seen) {
    for (property, mount, words) in [
        (
            "TmpfsOptions.Options",
            json!({"TmpfsOptions": {"Options": [["wat"]]}}),
            "invalid option: wat",
        ),
        (
            "TmpfsOptions.Options",
            json!({"TmpfsOptions": {"Options": [[]]}}),
            "invalid option array length",
        ),
        (
            "Mount.Source",
            json!({"Source": "x"}),
            "field Source must not be specified",
        ),
        (
            "Mount.BindOptions",
            json!({"BindOptions": {}}),
            "field BindOptions must not be specified",
        ),
    ] {
        let mut mount = mount;
        mount["Type"] = "tmpfs".into();
        mount["Target"] = "/m".into();
        let reply = lab.refusal(&mounts(json!([mount])));
        seen.refused(
            property,
            reply,
            400,
            &format!("invalid mount config for type \"tmpfs\": {words}"),
        );
    }
}

/// `--volumes-from`.
pub(crate) fn from_others(lab: &Lab<'_>, seen: &Seen) {
    let donor =
        lab.create(&json!({"Volumes": {"/data": {}}, "HostConfig": {"Binds": ["/tmp:/bound:ro"]}}));
    let look = |mode: &str| {
        let from = format!("{}{mode}", donor.id);
        let script = "touch /data/x 2>/dev/null && echo data=rw; test -d /data && echo there=yes; touch /bound/x 2>/dev/null && echo bound=rw; true";
        let words = lab.run(&host(json!({"VolumesFrom": [from]})), script);
        [
            words.get("there").to_owned(),
            words.get("data").to_owned(),
            words.get("bound").to_owned(),
        ]
    };
    seen.eq(
        "HostConfig.VolumesFrom",
        look(""),
        ["yes", "rw", ""].map(str::to_owned),
    );
    seen.eq(
        "HostConfig.VolumesFrom",
        look(":rw,z"),
        ["yes", "rw", ""].map(str::to_owned),
    );
    seen.eq(
        "HostConfig.VolumesFrom",
        look(":ro"),
        ["yes", "", ""].map(str::to_owned),
    );
    for (from, words) in [
        ("", "volumes-from specification cannot be an empty string"),
        ("x:wat", "invalid mode: wat"),
        ("x:shared", "invalid mode: shared"),
        ("x:nocopy", "invalid mode: nocopy"),
    ] {
        seen.refused(
            "HostConfig.VolumesFrom",
            lab.refusal(&host(json!({"VolumesFrom": [from]}))),
            400,
            words,
        );
    }
    let unknown = lab.refusal(&host(json!({"VolumesFrom": ["nope"]})));
    seen.refused(
        "HostConfig.VolumesFrom",
        unknown,
        400,
        "No such container: nope",
    );
}
