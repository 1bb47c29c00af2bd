//! What is promised of every driver.

use std::time::{Duration, Instant};

use gantry_driver_api::{ErrorCode, Kind, encode, network, registry, storage, volume};

use crate::Subject;
use crate::report::{Problem, Report, expect, refused};
use crate::subject::call;

/// Every method of a kind, and whether it is required.
fn methods(kind: Kind) -> &'static [(&'static str, bool)] {
    match kind {
        Kind::Storage => storage::METHODS,
        Kind::Network => network::METHODS,
        Kind::Volume => volume::METHODS,
        Kind::Registry => registry::METHODS,
    }
}

/// How long a driver may take to reach what it works with.
const REACH: Duration = Duration::from_secs(10);

pub(crate) fn verify(subject: &Subject, report: &mut Report) {
    report.check(
        "is healthy, ten seconds after its start at the latest",
        || {
            let until = Instant::now() + REACH;
            loop {
                let health = driver(subject)?.health(&call())?;
                if health.healthy || Instant::now() > until {
                    return expect(health.healthy, || health.message);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        },
    );
    report.check(
        "declares the optional methods that it has, and no others",
        || capabilities(subject),
    );
    report.check("answers NotImplemented to unknown methods", || {
        refused(
            raw(subject, "no_such_method", b"\x80")?,
            ErrorCode::NotImplemented,
        )
    });
    report.check(
        "answers InvalidArgument to requests that make no sense",
        || {
            let required = methods(subject.kind())
                .iter()
                .filter(|(_, required)| *required);
            for (method, _) in
                required.filter(|(name, _)| !matches!(*name, "info" | "list" | "cleanup"))
            {
                // A lone array header, and an integer where a map is expected.
                for request in [&b"\xdc"[..], b"\x07"] {
                    refused(raw(subject, method, request)?, ErrorCode::InvalidArgument)?;
                }
            }
            Ok(())
        },
    );
    report.check("is still healthy after bad requests", || {
        let health = driver(subject)?.health(&call())?;
        expect(health.healthy, || health.message)
    });
}

fn capabilities(subject: &Subject) -> Result<(), Problem> {
    // Any optional method understands this, and finds nothing of that name.
    let endpoint = serde_json::json!({
        "domain": "127.0.0.1:1",
        "url": "http://127.0.0.1:1",
        "network": "verify-absent",
        "id": "verify-absent",
    });
    let request = serde_json::json!({
        "name": "verify-absent",
        "id": "verify-absent",
        "created": "2026-01-01T00:00:00Z",
        "enable_ipv4": false,
        "key": "verify-absent",
        "endpoint": endpoint,
        "repository": "verify/absent",
        "at": {"endpoint": endpoint, "repository": "verify/absent"},
        "reference": "absent",
        "digest": format!("sha256:{}", "0".repeat(64)),
        "location": "http://127.0.0.1:1/absent",
        "offset": 0,
        "size": 0,
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "bytes": [],
        "term": "verify-absent",
        "limit": 1,
    });
    let mut bytes = Vec::new();
    encode(&request, &mut bytes)?;
    let declared = &subject.manifest().capabilities;
    for (method, _) in methods(subject.kind())
        .iter()
        .filter(|(_, required)| !required)
    {
        let answer = raw(subject, method, &bytes)?;
        let has = !matches!(&answer, Err(e) if e.code == ErrorCode::NotImplemented);
        let says = declared.iter().any(|name| name == method);
        expect(has == says, || {
            format!("{method}: declared {says}, implemented {has}")
        })?;
    }
    for name in declared {
        let known = methods(subject.kind())
            .iter()
            .any(|(method, required)| method == name && !required);
        expect(known, || format!("{name} is declared and unknown"))?;
    }
    Ok(())
}

pub(crate) fn driver(
    subject: &Subject,
) -> Result<std::sync::Arc<dyn gantry_driver_api::Driver>, Problem> {
    subject.driver().map_err(|e| Problem::Failed(e.to_string()))
}

/// Calls a method with bytes of the check's own.
fn raw(
    subject: &Subject,
    method: &str,
    request: &[u8],
) -> Result<gantry_driver_api::DriverResult<()>, Problem> {
    let invoker = subject
        .invoker()
        .map_err(|e| Problem::Failed(e.to_string()))?;
    let mut reply = Vec::new();
    Ok(invoker.invoke(method, &call(), request, &mut reply))
}
