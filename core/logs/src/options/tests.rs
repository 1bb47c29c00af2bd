use super::*;
use crate::attrs::tests::options;

fn of(driver: &str, pairs: &[(&str, &str)]) -> Spool {
    check(driver, &options(pairs)).unwrap();
    spool(driver, &options(pairs)).unwrap().unwrap()
}

#[test]
fn limits_of_the_local_file() {
    let spool = |max_size, max_files, compress| Spool {
        max_size,
        max_files,
        compress,
        buffer: None,
    };
    let default = Some(20 << 20);
    assert_eq!(super::spool("none", &options(&[])), Ok(None));
    assert_eq!(of("json-file", &[]), spool(Some(50 << 20), 5, false));
    assert_eq!(of("local", &[]), spool(default, 5, true));
    assert_eq!(
        of("json-file", &[("max-size", "10m")]),
        spool(Some(10_000_000), 1, false)
    );
    assert_eq!(
        of(
            "json-file",
            &[("max-size", "10m"), ("max-file", "3"), ("compress", "true")]
        ),
        spool(Some(10_000_000), 3, true)
    );
    for none in ["-1", "unlimited"] {
        assert_eq!(
            of("json-file", &[("max-size", none)]),
            spool(None, 1, false)
        );
    }
    let gelf = [
        ("gelf-address", "udp://127.0.0.1:1"),
        ("cache-max-size", "1k"),
        ("cache-compress", "0"),
    ];
    assert_eq!(of("gelf", &gelf), spool(Some(1000), 5, false));
    let ring = of(
        "json-file",
        &[("mode", "non-blocking"), ("max-buffer-size", "4m")],
    );
    assert_eq!(ring.buffer, Some(4 << 20));
    assert_eq!(
        of("local", &[("mode", "non-blocking")]).buffer,
        Some(1 << 20)
    );
}

#[test]
fn what_can_be_read() {
    assert!(readable("journald", &options(&[])));
    assert!(!readable(
        "journald",
        &options(&[("cache-disabled", "true")])
    ));
    assert!(readable(
        "json-file",
        &options(&[("cache-disabled", "true")])
    ));
    assert!(!readable("none", &options(&[])));
}

#[test]
fn dockers_words() {
    let unknown = "logger: no log driver named 'awslogs' is registered";
    let gelf = ("gelf-address", "udp://127.0.0.1:1");
    let tcp = ("gelf-address", "tcp://127.0.0.1:1");
    for (driver, pairs, want) in [
        ("awslogs", &[][..], unknown),
        (
            "awslogs",
            &[("mode", "x")],
            "logger: logging mode not supported: x",
        ),
        (
            "json-file",
            &[("x", "y")],
            "unknown log opt 'x' for json-file log driver",
        ),
        (
            "local",
            &[("x", "y")],
            "unknown log opt 'x' for log driver local",
        ),
        (
            "local",
            &[("tag", "y")],
            "unknown log opt 'tag' for log driver local",
        ),
        (
            "syslog",
            &[("x", "y")],
            "unknown log opt 'x' for syslog log driver",
        ),
        (
            "journald",
            &[("x", "y")],
            "unknown log opt 'x' for journald log driver",
        ),
        (
            "fluentd",
            &[("max-size", "1m")],
            "unknown log opt 'max-size' for fluentd log driver",
        ),
        (
            "gelf",
            &[gelf, ("x", "y")],
            "unknown log opt \"x\" for gelf log driver",
        ),
        (
            "json-file",
            &[("max-file", "0")],
            "max-file cannot be less than 1",
        ),
        (
            "json-file",
            &[("max-file", "x")],
            "strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        ("json-file", &[("max-size", "x")], "invalid size: 'x'"),
        (
            "json-file",
            &[("max-size", "0")],
            "max-size must be a positive number",
        ),
        (
            "json-file",
            &[("compress", "x")],
            "strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        (
            "json-file",
            &[("compress", "true"), ("max-file", "1")],
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        (
            "local",
            &[("max-file", "1")],
            "compression cannot be enabled when max file count is 1",
        ),
        (
            "local",
            &[("max-size", "x")],
            "invalid value for max-size: x: invalid size: 'x'",
        ),
        (
            "json-file",
            &[("max-buffer-size", "1m")],
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            "json-file",
            &[("mode", "non-blocking"), ("max-buffer-size", "x")],
            "error parsing option max-buffer-size: invalid size: 'x'",
        ),
        (
            "syslog",
            &[("cache-disabled", "x")],
            "invalid value for option cache-disabled: x",
        ),
        (
            "syslog",
            &[("syslog-facility", "x")],
            "invalid syslog facility",
        ),
        (
            "syslog",
            &[("syslog-facility", "24")],
            "invalid syslog facility",
        ),
        ("syslog", &[("syslog-format", "x")], "Invalid syslog format"),
        (
            "syslog",
            &[("syslog-address", "host:514")],
            "syslog-address should be in form proto://address, got host:514",
        ),
        (
            "syslog",
            &[("syslog-address", "http://x")],
            "unsupported scheme: 'http'",
        ),
        (
            "syslog",
            &[("syslog-address", "unix:///no/such")],
            "stat /no/such: no such file or directory",
        ),
        (
            "fluentd",
            &[("fluentd-address", "ftp://x")],
            "invalid fluentd-address (ftp://x): unsupported scheme: 'ftp'",
        ),
        (
            "fluentd",
            &[("fluentd-address", "tcp://x/y")],
            "invalid fluentd-address (tcp://x/y): should not contain a path element",
        ),
        (
            "fluentd",
            &[("fluentd-address", "unix://")],
            "invalid fluentd-address (unix://): path is empty",
        ),
        (
            "fluentd",
            &[("fluentd-retry-wait", "5")],
            "time: missing unit in duration \"5\"",
        ),
        (
            "fluentd",
            &[("fluentd-async", "x")],
            "strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        ("gelf", &[], "gelf-address is a required parameter"),
        (
            "gelf",
            &[("gelf-address", "http://x:1")],
            "gelf: endpoint needs to be TCP or UDP",
        ),
        (
            "gelf",
            &[("gelf-address", "udp://x")],
            "gelf: please provide gelf-address as proto://host:port",
        ),
        (
            "gelf",
            &[gelf, ("gelf-compression-type", "x")],
            "unknown value \"x\" for log opt \"gelf-compression-type\" for gelf log driver",
        ),
        (
            "gelf",
            &[gelf, ("gelf-compression-level", "10")],
            "unknown value \"10\" for log opt \"gelf-compression-level\" for gelf log driver",
        ),
        (
            "gelf",
            &[tcp, ("gelf-compression-type", "gzip")],
            "compression is only supported on UDP",
        ),
        (
            "gelf",
            &[gelf, ("gelf-tcp-max-reconnect", "1")],
            "\"gelf-tcp-max-reconnect\" is only valid for TCP",
        ),
        (
            "gelf",
            &[tcp, ("gelf-tcp-max-reconnect", "-1")],
            "\"gelf-tcp-max-reconnect\" must be a positive integer",
        ),
    ] {
        let error = check(driver, &options(pairs)).unwrap_err();
        assert_eq!(error.to_string(), want, "{driver} {pairs:?}");
    }
}

#[test]
fn what_is_accepted() {
    for (driver, pairs) in [
        ("none", &[("anything", "goes")][..]),
        ("json-file", &[("tag", "{{.Name}}"), ("labels", "a")]),
        ("journald", &[("cache-max-file", "3"), ("tag", "x")]),
        (
            "syslog",
            &[
                ("syslog-address", "tcp+tls://host"),
                ("syslog-format", "rfc5424micro"),
            ],
        ),
        ("syslog", &[("syslog-facility", "23")]),
        (
            "fluentd",
            &[("fluentd-address", "host"), ("fluentd-async", "true")],
        ),
        (
            "fluentd",
            &[
                ("fluentd-address", "tls://host:1"),
                ("fluentd-request-ack", "1"),
            ],
        ),
        (
            "gelf",
            &[
                ("gelf-address", "tcp://h:1"),
                ("gelf-tcp-reconnect-delay", "1"),
            ],
        ),
    ] {
        assert_eq!(check(driver, &options(pairs)), Ok(()), "{driver} {pairs:?}");
    }
}
