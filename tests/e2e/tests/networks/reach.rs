//! Who reaches whom: by name, by published port, in shared namespaces.

use std::io::{Read, Write};
use std::net::TcpStream;

use gantry_e2e::{Engine, Far, eventually, free_port};

fn get(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(5)))
        .ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

const WEB: &str = "mkdir -p /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www";

#[test]
fn containers_find_each_other_by_name() {
    let engine = Engine::start();
    engine.docker(&["network", "create", "app"]).ok();
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            "app",
            "--network-alias",
            "site",
            "busybox",
            "sh",
            "-c",
            WEB,
        ])
        .ok();
    for name in ["web", "site", "web.app"] {
        let args = [
            "run",
            "--rm",
            "--network",
            "app",
            "busybox",
            "wget",
            "-qO-",
            &format!("http://{name}/"),
        ];
        let page = eventually("the server answers", 30, || {
            let done = engine.docker(&args);
            (done.code == 0).then_some(done.out)
        });
        assert_eq!(page, "page\n", "{name}");
    }
    let missing = engine.docker(&[
        "run",
        "--rm",
        "--network",
        "app",
        "busybox",
        "wget",
        "-qO-",
        "http://nobody.invalid/",
    ]);
    assert_ne!(missing.code, 0);
    let listed = engine
        .docker(&[
            "network",
            "inspect",
            "-f",
            "{{range .Containers}}{{.Name}}{{end}}",
            "app",
        ])
        .ok();
    assert_eq!(listed, "web");
    engine
        .docker(&["network", "rm", "app"])
        .fails(1, "has active endpoints");
    engine.docker(&["rm", "-f", "web"]).ok();
    engine.docker(&["network", "rm", "app"]).ok();
    engine.finish();
}

#[test]
fn published_port_from_host_container_and_another_namespace() {
    let engine = Engine::start();
    let port = free_port();
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "web",
            "-p",
            &format!("{port}:80"),
            "busybox",
            "sh",
            "-c",
            WEB,
        ])
        .ok();
    let page = eventually("the server answers on loopback", 30, || {
        get(&format!("127.0.0.1:{port}"))
    });
    assert!(page.ends_with("page\n"), "{page}");
    assert!(
        engine
            .docker(&["port", "web"])
            .ok()
            .contains(&format!("80/tcp -> 0.0.0.0:{port}"))
    );

    let far = Far::new(&engine);
    let url = format!("http://{}:{port}/", far.host());
    let outside = far.get(&url);
    let seen = engine.docker(&["run", "--rm", "busybox", "wget", "-qO-", &url]);
    assert_eq!(outside.as_deref(), Some("page\n"));
    assert_eq!(seen.ok(), "page", "hairpin");
    drop(far);

    let busy = engine.docker(&[
        "run",
        "-d",
        "--name",
        "two",
        "-p",
        &format!("{port}:80"),
        "busybox",
        "sleep",
        "9",
    ]);
    busy.fails(125, "port is already allocated");
    engine.finish();
}

#[test]
fn host_none_and_shared_namespaces() {
    let engine = Engine::start();
    let links = |mode: &str| {
        engine
            .docker(&[
                "run",
                "--rm",
                "--network",
                mode,
                "busybox",
                "ls",
                "/sys/class/net",
            ])
            .ok()
    };
    assert_eq!(links("none"), "lo");
    assert_eq!(links("bridge"), "eth0\nlo");
    let far = Far::new(&engine);
    assert!(links("host").lines().any(|link| link == far.link()));
    drop(far);
    engine
        .docker(&["run", "-d", "--name", "web", "busybox", "sh", "-c", WEB])
        .ok();
    let args = [
        "run",
        "--rm",
        "--network",
        "container:web",
        "busybox",
        "wget",
        "-qO-",
        "http://127.0.0.1/",
    ];
    let page = eventually("the neighbour answers", 30, || {
        let done = engine.docker(&args);
        (done.code == 0).then_some(done.out)
    });
    assert_eq!(page, "page\n");
    engine.finish();
}
