//! Uploads, manifests going out, deletion, referrers, search.

use std::io::{Seek, Write};
use std::os::fd::AsFd;

use gantry_plugin_sdk::registry::{
    BeginUpload, Credentials, FinishUpload, GetManifest, GetReferrers, PutManifest, Repository,
    Search, StatBlob, Upload, UploadChunk,
};
use gantry_plugin_sdk::{Call, DriverResult, ErrorCode, Registry};

use crate::common::{Server, hub, user};

const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn at(server: &Server) -> Repository {
    Repository {
        endpoint: server.endpoint(Credentials::default()),
        repository: "a/b".into(),
    }
}

fn begin(server: &Server, mount_from: &str) -> DriverResult<Upload> {
    let request = BeginUpload {
        at: at(server),
        digest: DIGEST.into(),
        mount_from: mount_from.into(),
    };
    hub().begin_upload(&Call::new("t"), request)
}

fn file(text: &str) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn a_blob_goes_up_in_pieces_and_whole() {
    let server = Server::start(|seen| match seen.line.split(' ').next() {
        Some("POST") => (
            202,
            vec![("Location", "/v2/a/b/blobs/uploads/1?state=x".into())],
            Vec::new(),
        ),
        Some("PATCH") => (
            202,
            vec![("Location", "/v2/a/b/blobs/uploads/2".into())],
            Vec::new(),
        ),
        _ => (201, Vec::new(), Vec::new()),
    });
    let upload = begin(&server, "").unwrap();
    assert_eq!(
        upload.location,
        format!("{}/v2/a/b/blobs/uploads/1?state=x", server.url())
    );
    let source = file("hello world");
    let fds = [source.as_fd()];
    let call = Call::new("t").with_fds(&fds);
    let chunk = UploadChunk {
        at: at(&server),
        location: upload.location,
        offset: 0,
        size: 6,
    };
    let next = hub().upload_chunk(&call, chunk).unwrap();
    let finish = FinishUpload {
        at: at(&server),
        location: next.location,
        digest: DIGEST.into(),
        size: 5,
    };
    hub().finish_upload(&call, finish).unwrap();
    let seen = server.seen();
    let lines: Vec<&str> = seen.iter().map(|seen| seen.line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "POST /v2/a/b/blobs/uploads/".to_owned(),
            "PATCH /v2/a/b/blobs/uploads/1?state=x".to_owned(),
            format!(
                "PUT /v2/a/b/blobs/uploads/2?digest={}",
                DIGEST.replace(':', "%3A")
            ),
        ]
    );
    assert_eq!(
        (seen[1].body.as_str(), seen[1].header("content-range")),
        ("hello ", "0-5")
    );
    assert_eq!(
        (seen[2].body.as_str(), seen[2].header("content-length")),
        ("world", "5")
    );
}

#[test]
fn a_blob_is_mounted_or_begun() {
    let server = Server::start(|seen| match seen.line.contains("from=here") {
        true => (
            201,
            vec![("Location", "/v2/a/b/blobs/x".into())],
            Vec::new(),
        ),
        false => (202, vec![("Location", "/up".into())], Vec::new()),
    });
    assert!(begin(&server, "here").unwrap().mounted);
    let begun = begin(&server, "not/there").unwrap();
    assert!(!begun.mounted && begun.location.ends_with("/up"));
    assert!(
        server.seen()[1].line.contains("mount=sha256%3A000")
            && server.seen()[1].line.ends_with("&from=not%2Fthere")
    );
    let silent = Server::start(|_| (202, Vec::new(), Vec::new()));
    assert_eq!(
        begin(&silent, "").unwrap_err().code,
        ErrorCode::InvalidArgument
    );
}

#[test]
fn a_short_source_is_no_upload() {
    let server = Server::start(|_| (201, Vec::new(), Vec::new()));
    let source = file("short");
    let fds = [source.as_fd()];
    let finish = FinishUpload {
        at: at(&server),
        location: format!("{}/up", server.url()),
        digest: DIGEST.into(),
        size: 5000,
    };
    let error = hub()
        .finish_upload(&Call::new("t").with_fds(&fds), finish.clone())
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert_eq!(
        hub()
            .finish_upload(&Call::new("t"), finish)
            .unwrap_err()
            .code,
        ErrorCode::InvalidArgument
    );
}

/// Tokens name what they are for; one that expires on the way is renewed for the next attempt.
#[test]
fn tokens_for_uploads() {
    let tokens = Server::start(|_| (200, Vec::new(), br#"{"token":"good"}"#.to_vec()));
    let realm = format!("Bearer realm=\"{}/t\",service=\"s\"", tokens.url());
    let server = Server::start(move |seen| {
        match (seen.header("authorization"), seen.line.contains("expired")) {
            ("Bearer good", false) => (202, vec![("Location", "/up".into())], Vec::new()),
            _ => (401, vec![("WWW-Authenticate", realm.clone())], Vec::new()),
        }
    });
    let hub = hub();
    let at = Repository {
        endpoint: server.endpoint(user("me", "secret")),
        repository: "a/b".into(),
    };
    let request = BeginUpload {
        at: at.clone(),
        digest: DIGEST.into(),
        mount_from: "c/d".into(),
    };
    hub.begin_upload(&Call::new("t"), request).unwrap();
    let asked = &tokens.seen()[0].line;
    assert!(
        asked.contains("scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%2Fd%3Apull"),
        "{asked}"
    );

    let send = |location: String, digest: &str| {
        let source = file("hello");
        let fds = [source.as_fd()];
        let finish = FinishUpload {
            at: at.clone(),
            location,
            digest: digest.into(),
            size: 5,
        };
        hub.finish_upload(&Call::new("t").with_fds(&fds), finish)
    };
    let error = send(format!("{}/expired", server.url()), DIGEST).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
    send(format!("{}/up", server.url()), DIGEST).unwrap();
    // A server that the upload was sent on to does not get the token.
    let elsewhere = Server::start(|_| (201, Vec::new(), Vec::new()));
    send(format!("{}/up", elsewhere.url()), DIGEST).unwrap();
    assert_eq!(elsewhere.seen()[0].header("authorization"), "");
}

#[test]
fn manifests_go_out_and_away() {
    let server = Server::start(|seen| match seen.line.as_str() {
        "PUT /v2/a/b/manifests/1" => (
            201,
            vec![("Docker-Content-Digest", DIGEST.into())],
            Vec::new(),
        ),
        line if line.starts_with("DELETE") => (202, Vec::new(), Vec::new()),
        line if line.starts_with("HEAD") => (200, vec![("Content-Length", "7".into())], Vec::new()),
        _ => (404, Vec::new(), Vec::new()),
    });
    let put = PutManifest {
        at: at(&server),
        reference: "1".into(),
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        bytes: b"{}".to_vec(),
    };
    assert_eq!(
        hub().put_manifest(&Call::new("t"), put).unwrap().digest,
        DIGEST
    );
    let seen = &server.seen()[0];
    assert_eq!(
        (seen.body.as_str(), seen.header("content-type")),
        ("{}", "application/vnd.oci.image.manifest.v1+json")
    );
    let delete = GetManifest {
        at: at(&server),
        reference: DIGEST.into(),
    };
    hub().delete_manifest(&Call::new("t"), delete).unwrap();
    let stat = StatBlob {
        at: at(&server),
        digest: DIGEST.into(),
    };
    assert_eq!(hub().stat_blob(&Call::new("t"), stat).unwrap().size, 7);
    // A registry without the list has none.
    let referrers = GetReferrers {
        at: at(&server),
        digest: DIGEST.into(),
    };
    let none = hub().referrers(&Call::new("t"), referrers).unwrap();
    assert!(
        String::from_utf8(none.bytes)
            .unwrap()
            .contains("\"manifests\":[]")
    );
}

#[test]
fn searches() {
    let server = Server::start(|seen| {
        assert_eq!(seen.line, "GET /v1/search?q=bu%26sy&n=3");
        let body = br#"{"num_results":2,"results":[
            {"name":"busybox","description":"Base image","star_count":9,"is_official":true,"is_automated":false},
            {"name":"me/busy"}]}"#;
        (200, Vec::new(), body.to_vec())
    });
    let request = Search {
        endpoint: server.endpoint(Credentials::default()),
        term: "bu&sy".into(),
        limit: 3,
    };
    let found = hub().search(&Call::new("t"), request).unwrap().results;
    assert_eq!(found.len(), 2);
    assert!(found[0].is_official && found[0].star_count == 9 && found[1].name == "me/busy");
}
