//! Directories of the host in containers.

use std::fs;
use std::path::{Path, PathBuf};

use gantry_e2e::run;
use serde_json::{Value, json};

use crate::lab::{Lab, Seen, host, mounts};

/// A directory of the host with a file, and a second file system mounted in it.
struct Tree(PathBuf);

impl Tree {
    fn new(lab: &Lab<'_>, name: &str) -> Self {
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
    fn path(&self) -> String {
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
    refused_binds(lab, seen);
}

/// What is no bind.
fn refused_binds(lab: &Lab<'_>, seen: &Seen) {
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
    refused_long_binds(lab, seen);
}

/// What is no bind in the long form.
fn refused_long_binds(lab: &Lab<'_>, seen: &Seen) {
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
