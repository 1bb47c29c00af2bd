//! What `--security-opt` and device requests ask for, in Docker's words and with Docker's refusals.

use gantry_model::container::HostConfig;
use gantry_runtime::spec::SeccompChoice;
use gantry_sys::cgroup::DeviceRule;

use crate::{EngineError, Result};

/// A container's security options; `None`: the engine's default.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Security {
    pub(crate) no_new_privileges: Option<bool>,
    pub(crate) writable_cgroups: bool,
    pub(crate) seccomp: Option<SeccompChoice>,
    pub(crate) apparmor: Option<String>,
    /// `systempaths=unconfined`, which the docker CLI turns into empty lists of paths itself.
    pub(crate) unmasked: bool,
}

impl Security {
    /// Reads the options; `apparmor`: whether the kernel has it.
    ///
    /// # Errors
    /// Docker's for what it does not know. A profile of a security module that the kernel does not have is refused, too:
    /// a container that is less confined than was asked for is worse than none.
    pub(crate) fn parse(options: &[String], apparmor: bool) -> Result<Self> {
        let mut out = Self::default();
        for option in options {
            match option.as_str() {
                "no-new-privileges" => {
                    out.no_new_privileges = Some(true);
                    continue;
                }
                "writable-cgroups" => {
                    out.writable_cgroups = true;
                    continue;
                }
                "disable" => continue,
                _ => {}
            }
            let wrong = |which: u8| {
                EngineError::bad_request(format!("invalid --security-opt {which}: {option:?}"))
            };
            let (key, value) = option
                .split_once('=')
                .or_else(|| option.split_once(':'))
                .ok_or_else(|| wrong(1))?;
            let flag = || parse_bool(value).ok_or_else(|| wrong(2));
            match key {
                "no-new-privileges" => out.no_new_privileges = Some(flag()?),
                "writable-cgroups" => out.writable_cgroups = flag()?,
                "seccomp" => {
                    out.seccomp = Some(match value {
                        "unconfined" => SeccompChoice::Unconfined,
                        "builtin" => SeccompChoice::Builtin,
                        profile => SeccompChoice::Profile(profile.to_owned()),
                    });
                }
                "apparmor" => out.apparmor = profile(value, apparmor)?,
                // Without SELinux labels mean nothing; dockerd accepts them then, too.
                "label" => {}
                "systempaths" if value == "unconfined" => out.unmasked = true,
                _ => return Err(wrong(2)),
            }
        }
        Ok(out)
    }
}

/// The AppArmor profile to run under. Containers that ask for Docker's own get what those without a wish get.
fn profile(name: &str, apparmor: bool) -> Result<Option<String>> {
    match name {
        "" | "unconfined" | "docker-default" => Ok(None),
        _ if !apparmor => Err(EngineError::bad_request(format!(
            "apparmor: profile {name:?} was asked for, but the kernel has no AppArmor"
        ))),
        name => Ok(Some(name.to_owned())),
    }
}

/// Go's words for truth.
fn parse_bool(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// The CDI names of the devices that a container asks for; `cdi`: whether any specifications are looked at.
///
/// # Errors
/// Docker's for a driver that there is not: CDI is the only one.
pub(crate) fn devices(host: &HostConfig, cdi: bool) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for request in host.device_requests.iter().flatten() {
        if request.driver != "cdi" || !cdi {
            let wanted = request.capabilities.iter().flatten();
            let wanted: Vec<String> = wanted.map(|c| format!("[{}]", c.join(" "))).collect();
            return Err(EngineError::bad_request(format!(
                "could not select device driver {:?} with capabilities: [{}]",
                request.driver,
                wanted.join(" ")
            )));
        }
        let unexpected = |what: &str| {
            EngineError::bad_request(format!("unexpected {what} in CDI device request"))
        };
        if request.count != 0 {
            return Err(unexpected("count"));
        }
        if !request.options.is_empty() {
            return Err(unexpected("options"));
        }
        names.extend(request.device_ids.iter().flatten().cloned());
    }
    Ok(names)
}

/// Checks the rules of the device cgroup.
///
/// # Errors
/// Docker's for what is no rule.
pub(crate) fn device_rules(host: &HostConfig) -> Result<()> {
    let rules = host.device_cgroup_rules.iter().flatten();
    for rule in rules {
        if DeviceRule::parse(rule, true).is_none() {
            return Err(EngineError::bad_request(format!(
                "invalid device cgroup rule format: '{rule}'"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::container::DeviceRequest;

    fn parse(options: &[&str]) -> Result<Security> {
        let options: Vec<String> = options.iter().map(|&o| o.to_owned()).collect();
        Security::parse(&options, false)
    }

    #[test]
    fn both_separators_and_the_last_word() {
        let read = parse(&["no-new-privileges", "seccomp:unconfined", "label=disable"]).unwrap();
        assert_eq!(read.no_new_privileges, Some(true));
        assert_eq!(read.seccomp, Some(SeccompChoice::Unconfined));
        let read = parse(&["no-new-privileges=f", "seccomp={\"a\":1}", "disable"]).unwrap();
        assert_eq!(read.no_new_privileges, Some(false));
        let json = SeccompChoice::Profile("{\"a\":1}".into());
        assert_eq!(read.seccomp, Some(json));
        assert!(parse(&["writable-cgroups=true"]).unwrap().writable_cgroups);
        assert!(parse(&["systempaths=unconfined"]).unwrap().unmasked);
        assert_eq!(parse(&[]).unwrap(), Security::default());
    }

    #[test]
    fn what_is_not_known_or_not_there() {
        let refused = |option: &str| parse(&[option]).unwrap_err().message;
        assert_eq!(refused("wat"), "invalid --security-opt 1: \"wat\"");
        assert_eq!(refused("wat=1"), "invalid --security-opt 2: \"wat=1\"");
        assert_eq!(
            refused("no-new-privileges=maybe"),
            "invalid --security-opt 2: \"no-new-privileges=maybe\""
        );
        assert!(refused("systempaths=x").starts_with("invalid --security-opt 2"));
        assert!(refused("apparmor=mine").contains("the kernel has no AppArmor"));
        assert_eq!(parse(&["apparmor=unconfined"]).unwrap().apparmor, None);
        let there = Security::parse(&["apparmor=mine".into()], true).unwrap();
        assert_eq!(there.apparmor.as_deref(), Some("mine"));
    }

    #[test]
    fn rules_of_the_device_cgroup() {
        let check = |rule: &str| {
            device_rules(&HostConfig {
                device_cgroup_rules: Some(vec![rule.to_owned()]),
                ..HostConfig::default()
            })
        };
        for rule in ["a *:* rwm", "c 10:200 rw", "b 8:* r"] {
            check(rule).unwrap();
        }
        for rule in ["c 1:1 x", "c 1 r", ""] {
            let words = format!("invalid device cgroup rule format: '{rule}'");
            assert_eq!(check(rule).unwrap_err().message, words);
        }
    }

    fn request(change: impl FnOnce(&mut DeviceRequest)) -> Result<Vec<String>> {
        let mut request = DeviceRequest {
            driver: "cdi".into(),
            device_ids: Some(vec!["v.com/c=d".into()]),
            ..DeviceRequest::default()
        };
        change(&mut request);
        let host = HostConfig {
            device_requests: Some(vec![request]),
            ..HostConfig::default()
        };
        devices(&host, true)
    }

    #[test]
    fn devices_by_name_or_refused() {
        assert_eq!(request(|_| ()).unwrap(), ["v.com/c=d"]);
        let gpus = request(|r| {
            r.driver = String::new();
            r.count = -1;
            r.capabilities = Some(vec![vec!["gpu".into()]]);
        });
        assert_eq!(
            gpus.unwrap_err().message,
            "could not select device driver \"\" with capabilities: [[gpu]]"
        );
        assert_eq!(
            request(|r| r.count = 1).unwrap_err().message,
            "unexpected count in CDI device request"
        );
        let options = request(|r| drop(r.options.insert("a".into(), "b".into())));
        assert_eq!(
            options.unwrap_err().message,
            "unexpected options in CDI device request"
        );
    }
}
