use super::*;

const WHOLE: &str = r#"
server = "https://registry-1.docker.io"
ca = "/etc/own.pem"
unheard_of = 1

[host."https://second.example/v2"]
[host."http://first.example:5000"]
capabilities = ["pull"]
skip_verify = true
ca = ["a.pem", "/b.pem"]
client = [["c.cert", "c.key"], ["both.pem", ""]]
[host."http://first.example:5000".header]
x-one = "1"
x-many = ["2", "3"]
[host."https://harbor.example/v2/proxy"]
override_path = true
capabilities = ["pull", "resolve", "push"]
client = "me.pem"
"#;

#[test]
fn a_file_says_who_is_asked_and_how() {
    let file = file::parse(WHOLE, Path::new("/dir"), "docker.io").unwrap();
    assert_eq!(file.server.url, "https://registry-1.docker.io");
    assert!(file.server.pushes && file.server.resolves);
    assert_eq!(
        file.server.certificates.authorities,
        [PathBuf::from("/etc/own.pem")]
    );
    let [second, first, harbor] = file.hosts.as_slice() else {
        panic!("{:?}", file.hosts);
    };
    // The file's order, not the alphabet's.
    assert_eq!(second.url, "https://second.example");
    assert!(second.pulls && second.resolves && !second.pushes);
    assert!(first.pulls && !first.resolves && first.skip_verify);
    let paths: Vec<&Path> = first
        .certificates
        .authorities
        .iter()
        .map(|p| &**p)
        .collect();
    assert_eq!(paths, [Path::new("/dir/a.pem"), Path::new("/b.pem")]);
    let [pair, both] = first.certificates.own.as_slice() else {
        panic!("{first:?}");
    };
    assert_eq!(pair.key, Path::new("/dir/c.key"));
    assert_eq!(both.key, both.certificate);
    let headers = [("x-one", "1"), ("x-many", "2"), ("x-many", "3")];
    assert_eq!(
        first.headers.0,
        headers.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert_eq!(harbor.url, "https://harbor.example/v2/proxy");
    assert!(harbor.override_path && harbor.pushes);
    assert_eq!(
        harbor.certificates.own[0].certificate,
        Path::new("/dir/me.pem")
    );
}

#[test]
fn the_registry_itself_is_asked_once() {
    let text = "[host.\"https://reg.example\"]\n[host.\"m.example\"]";
    let file = file::parse(text, Path::new("/"), "reg.example").unwrap();
    assert_eq!(file.server.url, "");
    let urls: Vec<&str> = file.hosts.iter().map(|host| host.url.as_str()).collect();
    assert_eq!(urls, ["https://m.example"]);
}

#[test]
fn what_is_wrong_is_said() {
    for (text, said) in [
        ("server = ", "value"),
        ("server = 1", "string"),
        ("server = \"ftp://x\"", "invalid host \"ftp://x\""),
        ("[host.\"https://u:p@x\"]", "only scheme, host"),
        (
            "[host.x]\ncapabilities = [\"fly\"]",
            "unknown capability fly",
        ),
        ("[host.x]\nclient = [[\"a\", \"b\", \"c\"]]", "client: "),
        ("[host.x.header]\na = 1", "header \"a\" is neither"),
        ("[host]\nx = 1", "host \"x\""),
    ] {
        let error = file::parse(text, Path::new("/"), "reg.example").unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn directories() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (root.path().join("a"), root.path().join("b"));
    let place = |path: &Path, name: &str| {
        std::fs::create_dir_all(path).unwrap();
        std::fs::write(path.join(name), "").unwrap();
    };
    place(&a.join("reg.example:5000"), "one.crt");
    place(&b.join("reg.example_5000_"), "two.crt");
    place(&b.join("reg.example_5000_"), "me.cert");
    place(&b.join("reg.example_5000_"), "me.key");
    place(&a.join("_default"), "hosts.toml");
    place(&a.join("bad"), "me.cert");
    place(&a.join("worse"), "me.key");
    let dirs = [a, b];
    let found = certificates(&dirs, "reg.example:5000").unwrap();
    assert_eq!(found.authorities.len(), 2);
    assert_eq!(found.own.len(), 1);
    assert!(hosts_file(&dirs, "reg.example:5000").unwrap().is_none());
    assert!(hosts_file(&dirs, "other.example").unwrap().is_some());
    assert_eq!(
        certificates(&dirs, "bad").unwrap_err().to_string(),
        "missing key me.key for client certificate me.cert. CA certificates must use the extension .crt"
    );
    assert_eq!(
        certificates(&dirs, "worse").unwrap_err().to_string(),
        "missing client certificate me.cert for key me.key"
    );
}
