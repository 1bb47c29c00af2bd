//! Drivers by name, and their options.

use std::process::Command;

use gantry_e2e::{Engine, Options};

use crate::start;

#[test]
fn options_are_checked_inherited_and_shown() {
    let config = serde_json::json!({
        "log-driver": "json-file", "log-opts": {"labels": "team", "tag": "{{.Name}}/{{.ImageName}}"},
    });
    let engine = Engine::with(Options {
        config: Some(config),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    wrong_ones_are_refused(&engine);
    start(
        &engine,
        "cc",
        &["--label", "team=blue", "--label", "other=x"],
        "echo hi",
    );
    engine.docker(&["wait", "cc"]).ok();
    assert_eq!(
        engine.docker(&["logs", "--details", "cc"]).out,
        "tag=cc%2Fbusybox,team=blue hi\n"
    );
    start(&engine, "none", &["--log-driver", "none"], "echo hi");
    engine
        .docker(&["logs", "none"])
        .fails(1, "configured logging driver does not support reading");
    let info = engine.docker(&["info", "-f", "{{json .Plugins.Log}}"]).ok();
    assert_eq!(
        info,
        r#"["fluentd","gelf","journald","json-file","local","syslog"]"#
    );
    engine.finish();
    a_daemon_does_not_start_with_wrong_ones();
}

fn wrong_ones_are_refused(engine: &Engine) {
    for (options, words) in [
        (
            &["--log-driver", "splunk"][..],
            "logger: no log driver named 'splunk' is registered",
        ),
        (
            &["--log-opt", "x=y"],
            "unknown log opt 'x' for json-file log driver",
        ),
        (&["--log-opt", "max-size=x"], "invalid size: 'x'"),
        (
            &["--log-opt", "max-file=0"],
            "max-file cannot be less than 1",
        ),
        (
            &["--log-opt", "mode=x"],
            "logger: logging mode not supported: x",
        ),
        (
            &["--log-driver", "gelf"],
            "gelf-address is a required parameter",
        ),
    ] {
        let args = [&["create"][..], options, &["busybox"]].concat();
        engine.docker(&args).fails(1, words);
    }
}

fn a_daemon_does_not_start_with_wrong_ones() {
    let mut bad = Command::new(gantry_e2e::bin_dir().join("gantryd"));
    let dir = tempfile::tempdir().unwrap();
    let root = |name: &str| dir.path().join(name).display().to_string();
    let socket = format!("unix://{}", root("s"));
    bad.args([
        "-H",
        &socket,
        "--data-root",
        &root("data"),
        "--exec-root",
        &root("run"),
    ]);
    bad.args([
        "--pidfile",
        &root("pid"),
        "--config-file",
        "/dev/null",
        "--log-opt",
        "x=y",
    ]);
    let out = bad.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr) + String::from_utf8_lossy(&out.stdout);
    assert!(
        !out.status.success() && said.contains("unknown log opt 'x'"),
        "{said}"
    );
}
