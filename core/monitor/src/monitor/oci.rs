//! The little of the OCI runtime specification and of runtimes' manners that foreign runtimes need.

use gantry_monitor::plan::{ExecPlan, Process};
use gantry_monitor::protocol::Stage;
use gantry_sys::caps::CapSet;
use serde_json::{Value, json};

use crate::process::Identity;

/// Names of resource limits by number, as the specification spells them.
const RLIMITS: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// The `process.json` of an exec. The filter of system calls is the runtime's own, from the bundle.
pub(crate) fn process(exec: &ExecPlan, identity: &Identity, terminal: bool) -> String {
    let p = &exec.process;
    let mut env = p.env.clone();
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    let mut value = json!({
        "terminal": terminal,
        "user": {
            "uid": identity.uid,
            "gid": identity.gid,
            "additionalGids": identity.groups,
            "umask": p.umask.unwrap_or(0o022),
        },
        "args": p.argv,
        "env": env,
        "cwd": if p.cwd.as_os_str().is_empty() { "/".into() } else { p.cwd.to_string_lossy() },
        "capabilities": capabilities(p),
        "rlimits": rlimits(p),
        "noNewPrivileges": p.no_new_privileges,
    });
    if let (Some((rows, columns)), true) = (exec.size, terminal) {
        value["consoleSize"] = json!({"height": rows, "width": columns});
    }
    for (key, text) in [
        ("apparmorProfile", &p.apparmor),
        ("selinuxLabel", &p.selinux),
    ] {
        if let Some(text) = text {
            value[key] = json!(text);
        }
    }
    if let Some(score) = exec.oom_score_adj {
        value["oomScoreAdj"] = json!(score);
    }
    value.to_string()
}

fn capabilities(p: &Process) -> Value {
    let names = |bits: u64| -> Vec<String> { CapSet::from_bits(bits).names().collect() };
    json!({
        "bounding": names(p.capabilities.bounding),
        "effective": names(p.capabilities.effective),
        "permitted": names(p.capabilities.permitted),
        "inheritable": names(p.capabilities.inheritable),
        "ambient": names(p.capabilities.ambient),
    })
}

fn rlimits(p: &Process) -> Vec<Value> {
    let name = |n: u32| RLIMITS.get(n as usize);
    p.rlimits
        .iter()
        .filter_map(|l| Some(json!({"type": name(l.resource)?, "soft": l.soft, "hard": l.hard})))
        .collect()
}

/// The message of the last error in a log of JSON lines.
pub(crate) fn last_error(log: &[u8]) -> Option<String> {
    let mut errors = log.split(|b| *b == b'\n').filter_map(|line| {
        let value: Value = serde_json::from_slice(line).ok()?;
        let is_error = matches!(value["level"].as_str(), Some("error" | "fatal" | "ERROR"));
        let message = value["msg"].as_str().filter(|_| is_error)?;
        Some(message.trim().to_owned())
    });
    errors.next_back()
}

/// What kind of failure a runtime's message tells of: whether the program was not there, or cannot be executed.
pub(crate) fn stage(message: &str) -> Stage {
    let lower = message.to_lowercase();
    let of_program =
        lower.contains("exec: ") || lower.contains("executable file") || lower.contains("exec /");
    if of_program && (lower.contains("not found") || lower.contains("no such file")) {
        Stage::NotFound
    } else if of_program
        && (lower.contains("permission denied")
            || lower.contains("is a directory")
            || lower.contains("format error"))
    {
        Stage::NotExecutable
    } else {
        Stage::Runtime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_found_and_sorted() {
        let log = br#"{"level":"warning","msg":"w"}
{"level":"error","msg":"runc create failed: exec: \"x\": executable file not found in $PATH"}
garbage
"#;
        let message = last_error(log).unwrap();
        assert!(message.ends_with("$PATH"));
        assert_eq!(stage(&message), Stage::NotFound);
        assert_eq!(
            stage("executable file `/x` not found: No such file"),
            Stage::NotFound
        );
        assert_eq!(
            stage("exec: \"/x\": permission denied"),
            Stage::NotExecutable
        );
        assert_eq!(
            stage("cannot mount /x: no such file or directory"),
            Stage::Runtime
        );
        assert_eq!(last_error(b""), None);
    }

    #[test]
    fn an_exec_is_written_as_the_specification_has_it() {
        let mut exec = ExecPlan::default();
        exec.process.capabilities.bounding = 1;
        exec.process.rlimits = vec![gantry_monitor::plan::Rlimit {
            resource: 7,
            soft: 1,
            hard: 2,
        }];
        let identity = Identity {
            uid: 1,
            gid: 2,
            groups: vec![3],
            home: "/h".into(),
        };
        let v: Value = serde_json::from_str(&process(&exec, &identity, false)).unwrap();
        assert_eq!(v["capabilities"]["bounding"], json!(["CAP_CHOWN"]));
        assert_eq!(
            v["rlimits"][0],
            json!({"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2})
        );
        assert_eq!((&v["cwd"], &v["env"]), (&json!("/"), &json!(["HOME=/h"])));
    }
}
