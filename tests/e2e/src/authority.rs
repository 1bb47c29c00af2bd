//! A certificate authority of the test's own.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::run;

/// The authority; its files are in the directory that it was given.
pub struct Authority {
    dir: PathBuf,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Pair {
    /// Certificate.
    pub certificate: PathBuf,
    /// Key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes an authority whose files go into `dir`.
    pub fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a temporary directory is writable");
        let authority = Self { dir: dir.into() };
        let (key, certificate) = (authority.file("ca.key"), authority.file("ca.crt"));
        // Servers name the authorities that they accept, so no two have the same name.
        let subject = format!("/CN=Authority of {}", dir.display()).replace(['/', '.'], " ");
        let subject = subject.replacen(' ', "/", 1);
        openssl(&[
            &NEW_KEY[..],
            &["-x509", "-days", "2", "-subj", &subject],
            &["-keyout", &key, "-out", &certificate],
        ]);
        authority
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Signs a certificate for a server with these names (`DNS:localhost`, `IP:127.0.0.1`), or for a client.
    pub fn sign(&self, common_name: &str, names: &[&str]) -> Pair {
        let file = |end: &str| self.file(&format!("{common_name}{end}"));
        let (key, request, certificate) = (file(".key"), file(".csr"), file(".cert"));
        let subject = format!("/CN={common_name}");
        openssl(&[
            &NEW_KEY[..],
            &["-subj", &subject, "-keyout", &key, "-out", &request],
        ]);
        let mut extensions = "basicConstraints=critical,CA:FALSE\n".to_owned();
        if !names.is_empty() {
            extensions += &format!("subjectAltName={}\n", names.join(","));
        }
        let path = file(".ext");
        fs::write(&path, extensions).expect("a temporary directory is writable");
        let (ca, ca_key) = (self.file("ca.crt"), self.file("ca.key"));
        openssl(&[
            &["x509", "-req", "-days", "2", "-CAcreateserial"],
            &["-CA", &ca, "-CAkey", &ca_key, "-extfile", &path],
            &["-in", &request, "-out", &certificate],
        ]);
        Pair {
            certificate: certificate.into(),
            key: key.into(),
        }
    }
}

const NEW_KEY: [&str; 6] = [
    "req",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];

fn openssl(words: &[&[&str]]) {
    run("openssl", &words.concat()).ok();
}
