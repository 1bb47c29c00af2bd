//! Binds, volumes, images and memory.

use std::fs;
use std::path::{Path, PathBuf};

use gantry_e2e::run;
use serde_json::{Value, json};

use crate::lab::{Lab, Seen, Words};

fn host(config: Value) -> Value {
    json!({ "HostConfig": config })
}

fn mounts(list: Value) -> Value {
    host(json!({ "Mounts": list }))
}

/// A directory of the host with a file, and a second file system mounted in it.
pub(crate) struct Tree(PathBuf);

impl Tree {
    pub(crate) fn new(lab: &Lab<'_>, name: &str) -> Self {
        let dir = lab.engine.dir().join(name);
        fs::create_dir_all(dir.join("below")).expect("a temporary directory is writable");
        fs::write(dir.join("file"), "on the host").expect("a temporary directory is writable");
        run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "below",
                &dir.join("below").display().to_string(),
            ],
        )
        .ok();
        fs::write(dir.join("below/deep"), "deep").expect("it is writable");
        Self(dir)
    }
    pub(crate) fn path(&self) -> String {
        self.0.display().to_string()
    }
    fn propagates(&self, how: &str) {
        let path = self.path();
        run("mount", &["--bind", &path, &path]).ok();
        run("mount", &[how, &path]).ok();
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        while run("mountpoint", &["-q", &self.path()]).code == 0 {
            run("umount", &["-R", "-l", &self.path()]);
        }
        run(
            "umount",
            &["-l", &self.0.join("below").display().to_string()],
        );
    }
}

const LOOK: &str =
    "test -e /m/file && echo file=$(cat /m/file); test -e /m/below/deep && echo deep=yes
touch /m/new 2>/dev/null && echo top=rw; touch /m/below/new 2>/dev/null && echo below=rw
echo mount=$(grep ' /m ' /proc/self/mountinfo | tail -1); true";

/// `source:target:options`.
pub(crate) fn binds(lab: &Lab<'_>, seen: &Seen) {
    let tree = Tree::new(lab, "binds");
    let look = |options: &str| {
        lab.run(
            &host(json!({"Binds": [format!("{}:/m{options}", tree.path())]})),
            LOOK,
        )
    };
    let plain = look("");
    seen.eq(
        "HostConfig.Binds",
        (plain.get("file"), plain.get("deep"), plain.get("top")),
        ("on the host", "yes", "rw"),
    );
    let read_only = look(":ro,z,cached,rprivate");
    seen.eq(
        "HostConfig.Binds",
        (
            read_only.get("file"),
            read_only.get("top"),
            read_only.get("below"),
        ),
        ("on the host", "", ""),
    );
    let made = format!("{}/made/for/it", tree.path());
    lab.run(&host(json!({"Binds": [format!("{made}:/m")]})), "true");
    seen.holds(
        "HostConfig.Binds",
        Path::new(&made).is_dir(),
        "a missing source is made",
    );
    let named = lab.run(
        &host(json!({"Binds": ["propbind:/etc:nocopy", "propcopy:/var:copy"]})),
        "echo etc=$(ls /etc/group 2>/dev/null); echo var=$(ls -d /var/www)",
    );
    seen.eq(
        "HostConfig.Binds",
        (named.get("etc"), named.get("var")),
        ("", "/var/www"),
    );
    lab.engine
        .docker(&["volume", "rm", "propbind", "propcopy"])
        .ok();
    for (bind, words) in [
        ("/tmp:/m:wat", "invalid mode: wat"),
        ("/tmp:/m:ro,rw", "invalid mode: ro,rw"),
        ("/tmp:/m:private,shared", "invalid mode: private,shared"),
        (
            "/tmp:/m:nocopy",
            "field VolumeOptions must not be specified",
        ),
        ("vol:/m:shared", "field BindOptions must not be specified"),
        ("", "invalid volume specification: ''"),
        ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
        ("/tmp:rw", "invalid volume specification: '/tmp:rw'"),
        ("/tmp:/", "invalid specification: destination can't be '/'"),
        (
            "./here:/m",
            "includes invalid characters for a local volume name",
        ),
    ] {
        seen.refused(
            "HostConfig.Binds",
            lab.refusal(&host(json!({"Binds": [bind]}))),
            400,
            words,
        );
    }
    let twice = lab.refusal(&host(json!({"Binds": ["/tmp:/m", "/var:/m"]})));
    seen.refused("HostConfig.Binds", twice, 400, "Duplicate mount point: /m");
}

/// `--mount type=bind`.
pub(crate) fn long_binds(lab: &Lab<'_>, seen: &Seen) {
    let tree = Tree::new(lab, "long");
    let look = |options| {
        let mount = json!({"Type": "bind", "Source": tree.path(), "Target": "/m", "Consistency": "cached", "BindOptions": options});
        lab.run(&mounts(json!([mount])), LOOK)
    };
    let plain = look(Value::Null);
    for property in [
        "HostConfig.Mounts",
        "Mount.Type",
        "Mount.Source",
        "Mount.Target",
        "Mount.Consistency",
        "Mount.BindOptions",
    ] {
        seen.eq(
            property,
            (plain.get("file"), plain.get("deep"), plain.get("top")),
            ("on the host", "yes", "rw"),
        );
    }
    let flat = look(json!({"NonRecursive": true}));
    seen.eq(
        "BindOptions.NonRecursive",
        (flat.get("file"), flat.get("deep")),
        ("on the host", ""),
    );
    let made = format!("{}/mountpoint/made", tree.path());
    let mount = json!({"Type": "bind", "Source": made, "Target": "/m", "BindOptions": {"CreateMountpoint": true}});
    lab.run(&mounts(json!([mount])), "true");
    seen.holds(
        "BindOptions.CreateMountpoint",
        Path::new(&made).is_dir(),
        "the source is made",
    );
    let config = "invalid mount config for type \"bind\": ";
    for (property, mount, words) in [
        (
            "Mount.Source",
            json!({"Target": "/m"}),
            "field Source must not be empty",
        ),
        (
            "Mount.Source",
            json!({"Source": "here", "Target": "/m"}),
            "invalid mount path: 'here' mount path must be absolute",
        ),
        (
            "Mount.Source",
            json!({"Source": "/nowhere", "Target": "/m"}),
            "bind source path does not exist: /nowhere",
        ),
        (
            "Mount.Target",
            json!({"Source": "/tmp"}),
            "field Target must not be empty",
        ),
        (
            "Mount.Target",
            json!({"Source": "/tmp", "Target": "m"}),
            "invalid mount path: 'm' mount path must be absolute",
        ),
        (
            "Mount.Target",
            json!({"Source": "/tmp", "Target": "/"}),
            "invalid specification: destination can't be '/'",
        ),
        (
            "Mount.VolumeOptions",
            json!({"Source": "/tmp", "Target": "/m", "VolumeOptions": {}}),
            "field VolumeOptions must not be specified",
        ),
        (
            "BindOptions.Propagation",
            json!({"Source": "/tmp", "Target": "/m", "BindOptions": {"Propagation": "wat"}}),
            "invalid propagation mode: wat",
        ),
    ] {
        let mut mount = mount;
        mount["Type"] = "bind".into();
        let reply = lab.refusal(&mounts(json!([mount])));
        seen.refused(property, reply, 400, &format!("{config}{words}"));
    }
}

/// How deep read-only goes.
pub(crate) fn read_only_binds(lab: &Lab<'_>, seen: &Seen) {
    let tree = Tree::new(lab, "read-only");
    let look = |options| {
        let mount = json!({"Type": "bind", "Source": tree.path(), "Target": "/m", "ReadOnly": true, "BindOptions": options});
        let words = lab.run(&mounts(json!([mount])), LOOK);
        (words.get("top").to_owned(), words.get("below").to_owned())
    };
    let none = || (String::new(), String::new());
    seen.eq("Mount.ReadOnly", look(Value::Null), none());
    seen.eq(
        "BindOptions.ReadOnlyForceRecursive",
        look(json!({"ReadOnlyForceRecursive": true, "Propagation": "rprivate"})),
        none(),
    );
    let top_only = look(json!({"ReadOnlyNonRecursive": true}));
    seen.eq(
        "BindOptions.ReadOnlyNonRecursive",
        top_only,
        (String::new(), "rw".to_owned()),
    );
    let both = json!({"ReadOnlyForceRecursive": true, "ReadOnlyNonRecursive": true});
    let mount = json!({"Type": "bind", "Source": "/tmp", "Target": "/m", "ReadOnly": true, "BindOptions": both});
    let reply = lab.refusal(&mounts(json!([mount])));
    let words = "mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive";
    seen.refused("BindOptions.ReadOnlyForceRecursive", reply, 400, words);
}

/// Mounts that appear later: on the host, inside.
pub(crate) fn propagation(lab: &Lab<'_>, seen: &Seen) {
    let tree = Tree::new(lab, "propagated");
    let bind = |word: &str| json!({"Type": "bind", "Source": tree.path(), "Target": "/m", "BindOptions": {"Propagation": word}});
    let private =
        lab.refusal(&json!({"Cmd": ["true"], "HostConfig": {"Mounts": [bind("rshared")]}}));
    tree.propagates("--make-private");
    let reply = lab.refusal(&json!({"Cmd": ["true"], "HostConfig": {"Mounts": [bind("rshared")]}}));
    seen.holds(
        "BindOptions.Propagation",
        reply.0 >= 400
            && reply.1.contains("is mounted on")
            && reply.1.contains("but it is not a shared mount"),
        format!("{private:?} {reply:?}"),
    );
    let reply = lab.refusal(&json!({"Cmd": ["true"], "HostConfig": {"Mounts": [bind("rslave")]}}));
    seen.holds(
        "BindOptions.Propagation",
        reply.0 >= 400 && reply.1.contains("but it is not a shared or slave mount"),
        format!("{reply:?}"),
    );
    tree.propagates("--make-shared");
    let slave = lab.hold(&mounts(json!([bind("rslave")])));
    let shared = lab.hold(&json!({"HostConfig": {"Mounts": [bind("rshared")], "CapAdd": ["SYS_ADMIN"], "SecurityOpt": ["seccomp=unconfined"]}}));
    let closed = lab.hold(&mounts(json!([bind("")])));
    let late = tree.0.join("late");
    fs::create_dir(&late).expect("it is writable");
    run(
        "mount",
        &["-t", "tmpfs", "late", &late.display().to_string()],
    )
    .ok();
    fs::write(late.join("seen"), "").expect("it is writable");
    let look = "test -e /m/late/seen && echo late=yes; true";
    seen.eq(
        "BindOptions.Propagation",
        slave.exec(look).get("late"),
        "yes",
    );
    seen.eq(
        "BindOptions.Propagation",
        shared.exec(look).get("late"),
        "yes",
    );
    seen.eq("BindOptions.Propagation", closed.exec(look).get("late"), "");
    shared.exec("mkdir /m/inside && mount -t tmpfs inside /m/inside && touch /m/inside/seen");
    seen.holds(
        "BindOptions.Propagation",
        tree.0.join("inside/seen").exists(),
        "a mount made inside is on the host",
    );
}

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
