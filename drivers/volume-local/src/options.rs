//! The options of a volume that is mounted from elsewhere: `type`, `o` and `device`, with Docker's rules and words.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;

use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode, Mount};
use serde::{Deserialize, Serialize};

/// The options, as `opts.json` holds them. The default is a plain directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Options {
    #[serde(default)]
    mount_type: String,
    #[serde(default)]
    mount_opts: String,
    #[serde(default)]
    mount_device: String,
}

/// Options, and which others each needs.
const KNOWN: [(&str, &[&str]); 4] = [
    ("device", &["type"]),
    ("o", &["device", "type"]),
    ("size", &[]),
    ("type", &["device"]),
];

impl Options {
    /// Checks what the user gave.
    ///
    /// # Errors
    /// `InvalidArgument` for unknown or incomplete options, and for `size`: there are no quotas.
    pub(crate) fn parse(given: &BTreeMap<String, String>) -> DriverResult<Self> {
        for option in given.keys() {
            let Some((_, needed)) = KNOWN.iter().find(|(known, _)| known == option) else {
                return Err(DriverError::invalid(format!("invalid option: {option:?}")));
            };
            if let Some(missing) = needed.iter().find(|needed| !given.contains_key(**needed)) {
                return Err(DriverError::invalid(format!(
                    "missing required option: {missing:?}"
                )));
            }
        }
        if given.contains_key("size") {
            return Err(DriverError::invalid(
                "quota size requested but no quota support",
            ));
        }
        let get = |key: &str| given.get(key).cloned().unwrap_or_default();
        Ok(Self {
            mount_type: get("type"),
            mount_opts: get("o"),
            mount_device: get("device"),
        })
    }

    /// What to mount; none for a plain directory.
    pub(crate) fn mount(&self) -> DriverResult<Option<Mount>> {
        if self.mount_device.is_empty() && self.mount_type.is_empty() {
            return Ok(None);
        }
        let options: Vec<&str> = self
            .mount_opts
            .split(',')
            .filter(|o| !o.is_empty())
            .collect();
        if options.iter().any(|o| matches!(*o, "bind" | "rbind")) {
            return Ok(Some(Mount::Bind {
                source: self.mount_device.clone().into(),
                read_only: options.contains(&"ro"),
            }));
        }
        let network = matches!(self.mount_type.as_str(), "nfs" | "nfs4" | "cifs");
        let options = options
            .into_iter()
            .map(|option| match option.strip_prefix("addr=") {
                Some(host) if network => resolve(host).map(|ip| format!("addr={ip}")),
                _ => Ok(option.to_owned()),
            });
        Ok(Some(Mount::Filesystem {
            fstype: self.mount_type.clone(),
            source: self.mount_device.clone(),
            options: options.collect::<DriverResult<_>>()?,
        }))
    }
}

/// The kernel wants an address where people write a name.
fn resolve(host: &str) -> DriverResult<std::net::IpAddr> {
    let failed = |why: String| {
        let text = format!("error resolving passed in network volume address: {why}");
        DriverError::new(ErrorCode::Unavailable, text)
    };
    let mut addresses = (host, 0)
        .to_socket_addrs()
        .map_err(|e| failed(format!("{host}: {e}")))?;
    let address = addresses.next().ok_or_else(|| failed(host.to_owned()))?;
    Ok(address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[(&str, &str)]) -> DriverResult<Options> {
        let pairs = given
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Options::parse(&pairs.collect())
    }

    #[test]
    fn refuses_in_dockers_words() {
        for (given, message) in [
            (&[("foo", "1")][..], "invalid option: \"foo\""),
            (&[("type", "nfs")], "missing required option: \"device\""),
            (&[("device", "/x")], "missing required option: \"type\""),
            (
                &[("o", "ro"), ("type", "nfs")],
                "missing required option: \"device\"",
            ),
            (
                &[("size", "10m")],
                "quota size requested but no quota support",
            ),
        ] {
            let error = parse(given).unwrap_err();
            assert_eq!(
                (error.code, error.message.as_str()),
                (ErrorCode::InvalidArgument, message)
            );
        }
    }

    #[test]
    fn says_what_to_mount() {
        assert_eq!(parse(&[]).unwrap().mount().unwrap(), None);
        let tmpfs = parse(&[
            ("type", "tmpfs"),
            ("device", "tmpfs"),
            ("o", "size=1m,uid=5"),
        ]);
        assert_eq!(
            tmpfs.unwrap().mount().unwrap(),
            Some(Mount::Filesystem {
                fstype: "tmpfs".into(),
                source: "tmpfs".into(),
                options: vec!["size=1m".into(), "uid=5".into()],
            })
        );
        let bind = parse(&[("type", "none"), ("device", "/srv"), ("o", "bind,ro")]);
        assert_eq!(
            bind.unwrap().mount().unwrap(),
            Some(Mount::Bind {
                source: "/srv".into(),
                read_only: true,
            })
        );
        let nfs = parse(&[
            ("type", "nfs"),
            ("device", ":/e"),
            ("o", "addr=127.0.0.1,rw"),
        ]);
        assert_eq!(
            nfs.unwrap().mount().unwrap(),
            Some(Mount::Filesystem {
                fstype: "nfs".into(),
                source: ":/e".into(),
                options: vec!["addr=127.0.0.1".into(), "rw".into()],
            })
        );
    }
}
