//! Programs that run at points of a container's life.

use gantry_e2e::eventually;
use serde_json::{Value, json};

use crate::bundle::Bundle;

#[test]
fn hooks_run_in_their_order_and_are_told_the_state() {
    let mut b = Bundle::new("cat /hooked; sleep 1000");
    let inside = json!([{
        "path": "/bin/sh", "args": ["sh", "-c", "echo startContainer $(cat) > /hooked"],
        "env": ["PATH=/bin"]
    }]);
    b.config["hooks"] = json!({
        "prestart": [b.hook("prestart")],
        "createRuntime": [b.hook("createRuntime1"), b.hook("createRuntime2")],
        "createContainer": [b.hook("createContainer")],
        "startContainer": inside,
        // One that fails does not keep the next back, nor the container.
        "poststart": [{"path": "/bin/false"}, b.hook("poststart")],
        "poststop": [{"path": "/bin/false"}, b.hook("poststop")],
    });
    b.config["annotations"] = json!({"k": "v"});
    b.create("x");
    let pid = b.pid("x");
    let names = |log: &[String]| -> Vec<String> {
        let first = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
        log.iter().map(first).collect()
    };
    let log = b.log();
    let created = [
        "prestart",
        "createRuntime1",
        "createRuntime2",
        "createContainer",
    ];
    assert_eq!(names(&log), created);
    let told = |line: &str| -> Value {
        let (_, text) = line.split_once(' ').expect("a state");
        serde_json::from_str(text).expect("the state is JSON")
    };
    let state = told(&log[1]);
    assert_eq!(state["status"], "creating");
    assert_eq!(
        (&state["id"], &state["pid"]),
        (&json!(b.id("x")), &json!(pid))
    );
    assert_eq!(
        (&state["bundle"], &state["annotations"]["k"]),
        (&json!(b.dir.path()), &json!("v"))
    );
    // As the container sees it.
    assert_eq!(told(&log[3])["pid"], 1);
    b.oci("start @x").ok();
    let hooked = eventually("its hook", 30, || Some(b.out()).filter(|o| !o.is_empty()));
    let state = told(hooked.trim());
    assert_eq!(
        (&state["status"], &state["pid"]),
        (&json!("created"), &json!(1))
    );
    let log = b.log();
    assert_eq!(names(&log[4..]), ["poststart"]);
    assert_eq!(told(&log[4])["status"], "running");
    b.oci("delete --force @x").ok();
    let log = b.log();
    assert_eq!(names(&log[5..]), ["poststop"]);
    assert_eq!(told(&log[5])["status"], "stopped");
    assert_eq!(told(&log[5]).get("pid"), None);
    b.finish();
}

#[test]
fn a_failing_hook_undoes_the_container() {
    let mut b = Bundle::new("touch /ran");
    let fails = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 3"]}]);
    for kind in ["prestart", "createRuntime", "createContainer"] {
        b.config["hooks"] = json!({kind: fails, "poststop": [b.hook("poststop")]});
        let (code, said) = b.detached("create @x");
        assert!(code == 1 && said.contains("because"), "{kind}: {said}");
        b.oci("state @x").fails(1, "does not exist");
    }
    assert_eq!(b.log().len(), 3);
    b.config["hooks"] = json!({"startContainer": fails});
    b.create("x");
    b.oci("start @x").fails(1, "startContainer hook #0");
    b.await_status("x", "stopped");
    b.oci("delete @x").ok();
    b.config["hooks"] = json!({
        "createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]
    });
    let (code, said) = b.detached("create @x");
    assert!(
        code == 1 && said.contains("past specified timeout"),
        "{said}"
    );
    assert!(!b.path("rootfs/ran").exists());
    b.finish();
}
