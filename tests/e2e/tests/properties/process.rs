//! What runs, as whom, where, and with which streams.

use gantry_e2e::{Engine, eventually};
use serde_json::json;

use crate::lab::{Lab, RICH, Seen, Words};

const IDENTITY: &str = "echo host=$(hostname); echo domain=$(cat /proc/sys/kernel/domainname); echo uid=$(id -u)
echo gid=$(id -g); echo groups=$(id -G); echo cwd=$(pwd); echo owner=$(stat -c %u:%g:%a .); echo a=\"$A\"
echo gone=\"${GONE-unset}\"; echo keep=$KEEP; echo hosts=$(grep -c 'box.example.test[[:space:]]box' /etc/hosts)
echo path=$PATH; echo home=$HOME";

/// Names, user, directory, variables.
pub(crate) fn identity(lab: &Lab<'_>, seen: &Seen) {
    let body = json!({
        "Hostname": "box", "Domainname": "example.test", "User": "www", "WorkingDir": "/made/for/it", "Image": RICH,
        "Env": ["A=1 = 2", "GONE"], "Entrypoint": ["sh", "-c"], "Cmd": [IDENTITY], "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {"NetworkMode": "bridge", "GroupAdd": ["extra", "77"]}
    });
    let inside = lab.run(&body, "");
    seen.eq("Config.Hostname", inside.get("host"), "box");
    seen.eq("Config.Domainname", inside.get("domain"), "example.test");
    seen.eq("Config.Domainname", inside.get("hosts"), "1");
    seen.eq(
        "Config.User",
        (inside.get("uid"), inside.get("gid")),
        ("33", "33"),
    );
    seen.eq("Config.User", inside.get("home"), "/var/www");
    seen.eq("HostConfig.GroupAdd", inside.get("groups"), "33 44 77");
    seen.eq("Config.WorkingDir", inside.get("cwd"), "/made/for/it");
    seen.eq("Config.WorkingDir", inside.get("owner"), "0:0:755");
    seen.eq("Config.Env", inside.get("a"), "1 = 2");
    seen.eq(
        "Config.Env",
        (inside.get("gone"), inside.get("keep")),
        ("unset", "2"),
    );
    for (user, want) in [
        ("0:extra", "0:44"),
        ("7:8", "7:8"),
        ("33", "33:33"),
        ("www:root", "33:0"),
    ] {
        let words = lab.run(&json!({"User": user}), "echo ids=$(id -u):$(id -g)");
        seen.eq("Config.User", words.get("ids"), want);
    }
    let nobody = lab.refusal(&json!({"User": "nobody", "Cmd": ["true"]}));
    seen.refused(
        "Config.User",
        nobody,
        400,
        "unable to find user nobody: no matching entries in passwd file",
    );
    let relative = lab.refusal(&json!({"WorkingDir": "here", "Cmd": ["true"]}));
    let words = "the working directory 'here' is invalid, it needs to be an absolute path";
    seen.refused("Config.WorkingDir", relative, 400, words);
    let group = lab.refusal(&json!({"Cmd": ["true"], "HostConfig": {"GroupAdd": ["nope"]}}));
    seen.refused(
        "HostConfig.GroupAdd",
        group,
        400,
        "nable to find group nope: no matching entries in group file",
    );
}

/// Command and entry point: as given, inherited, cleared, as one word.
pub(crate) fn commands(lab: &Lab<'_>, seen: &Seen) {
    let out = |body| {
        let done = lab.create(&body).run();
        (done.code, done.out.trim().to_owned())
    };
    let said = |text: &str| (0, text.to_owned());
    // The image's entry point is `echo rich`, its command `by default`.
    let health = json!({"Test": ["NONE"]});
    seen.eq(
        "Config.Cmd",
        out(json!({"Image": RICH, "Healthcheck": health})),
        said("rich by default"),
    );
    seen.eq(
        "Config.Cmd",
        out(json!({"Image": RICH, "Healthcheck": health, "Cmd": ["now"]})),
        said("rich now"),
    );
    seen.eq(
        "Config.Cmd",
        out(json!({"Image": RICH, "Healthcheck": health, "Cmd": "now"})),
        said("rich now"),
    );
    seen.eq(
        "Config.Entrypoint",
        out(json!({"Image": RICH, "Entrypoint": ["echo", "mine"]})),
        said("mine"),
    );
    seen.eq(
        "Config.Entrypoint",
        out(json!({"Image": RICH, "Entrypoint": "hostname", "Hostname": "h"})),
        said("h"),
    );
    let cleared = json!({"Image": RICH, "Entrypoint": [""], "Cmd": ["echo", "alone"]});
    seen.eq("Config.Entrypoint", out(cleared), said("alone"));
    let nothing = lab.refusal(&json!({"Image": RICH, "Entrypoint": [""]}));
    seen.refused("Config.Cmd", nothing, 400, "no command specified");
    let missing = lab.refusal(&json!({"Entrypoint": ["/nope"]}));
    let words = "exec: \"/nope\": stat /nope: no such file or directory";
    seen.refused("Config.Entrypoint", missing, 400, words);
}

/// Standard input: none, kept open, closed after the first client.
pub(crate) fn streams(lab: &Lab<'_>, seen: &Seen) {
    let stdin = "echo in=$(readlink /proc/self/fd/0)";
    let closed = lab.run(&json!({}), stdin);
    seen.eq("Config.OpenStdin", closed.get("in"), "/dev/null");
    let open = lab.hold(&json!({"OpenStdin": true}));
    let first = open.exec("echo in=$(readlink /proc/1/fd/0)");
    seen.holds(
        "Config.OpenStdin",
        first.get("in").starts_with("pipe:"),
        first.get("in"),
    );
    let once = lab.create(
        &json!({"Cmd": ["sh", "-c", "cat; echo end=seen"], "OpenStdin": true, "StdinOnce": true,
        "AttachStdin": true, "AttachStdout": true}),
    );
    let done = lab
        .engine
        .docker_stdin(&["start", "-ai", &once.id], b"text=given\n");
    let words = Words::read(&done.out);
    seen.eq(
        "Config.StdinOnce",
        (words.get("text"), words.get("end")),
        ("given", "seen"),
    );
    let config = &once.inspect()["Config"];
    seen.eq("Config.AttachStdin", &config["AttachStdin"], true);
    seen.eq("Config.AttachStdout", &config["AttachStdout"], true);
    seen.eq("Config.AttachStderr", &config["AttachStderr"], false);
}

/// A terminal, of the size asked for.
pub(crate) fn terminal(lab: &Lab<'_>, seen: &Seen) {
    let script = "test -t 1 && echo tty=$(tty); echo size=$(stty size); echo term=$TERM";
    let body = json!({"Cmd": ["sh", "-c", script], "Tty": true, "OpenStdin": true, "HostConfig": {"ConsoleSize": [31, 97]}});
    let container = lab.create(&body);
    container.start();
    let logs = finished(lab.engine, &container.id);
    let words = Words::read(&logs);
    seen.eq(
        "Config.Tty",
        (words.get("tty"), words.get("term")),
        ("/dev/pts/0", "xterm"),
    );
    seen.holds(
        "Config.Tty",
        logs.contains("\r\n"),
        "lines of a terminal end in CR LF",
    );
    seen.eq("HostConfig.ConsoleSize", words.get("size"), "31 97");
}

/// The log of a container when it has ended.
fn finished(engine: &Engine, id: &str) -> String {
    eventually("the container ends", 30, || {
        let running = engine
            .docker(&["inspect", "-f", "{{.State.Running}}", id])
            .ok();
        (running == "false").then_some(())
    });
    engine.docker(&["logs", id]).out
}
