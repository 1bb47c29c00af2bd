//! Docker's profile format: OCI's, with entries that depend on capabilities, architecture and kernel.

use serde::Deserialize;

use super::{Action, Arch, Condition, Filter, Rule, SeccompError, flag};
use crate::caps::CapSet;

/// The longest profile that is read, in bytes.
const MAX_PROFILE: usize = 4 << 20;

/// A profile as written. Unknown fields are ignored, as Docker does.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    #[serde(default)]
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "null_is_empty")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    arch_map: Vec<ArchMap>,
    #[serde(default, deserialize_with = "null_is_empty")]
    flags: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    syscalls: Vec<Entry>,
    #[serde(default)]
    listener_path: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    sub_architectures: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    name: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "null_is_empty")]
    args: Vec<Arg>,
    #[serde(default)]
    includes: Option<Gate>,
    #[serde(default)]
    excludes: Option<Gate>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u64,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// What an entry depends on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gate {
    #[serde(default, deserialize_with = "null_is_empty")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    arches: Vec<String>,
    #[serde(default)]
    min_kernel: Option<String>,
}

fn null_is_empty<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(from)?.unwrap_or_default())
}

/// The container and machine a profile is resolved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResolveFor {
    /// The container's bounding set.
    pub caps: CapSet,
    /// The machine's architecture.
    pub arch: Arch,
    /// The kernel's major and minor version.
    pub kernel: (u32, u32),
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// [`SeccompError::Decode`].
    pub fn parse(json: &str) -> Result<Self, SeccompError> {
        if json.len() > MAX_PROFILE {
            return Err(SeccompError::Decode(format!(
                "longer than {MAX_PROFILE} bytes"
            )));
        }
        // A list would be taken for a profile's fields in their order.
        if !json.trim_start().starts_with('{') {
            return Err(SeccompError::Decode("not a JSON object".into()));
        }
        serde_json::from_str(json).map_err(|e| SeccompError::Decode(e.to_string()))
    }
    /// Whether the profile says nothing at all (`{}`), which to Docker means no filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.default_action.is_empty() && self.syscalls.is_empty()
    }
    /// The filter for one container.
    ///
    /// # Errors
    /// A profile that contradicts itself, or that asks for what is not done here.
    pub fn resolve(&self, to: ResolveFor) -> Result<Filter, SeccompError> {
        if self.listener_path.as_deref().is_some_and(|p| !p.is_empty()) {
            return Err(SeccompError::Unsupported("listenerPath".into()));
        }
        let mut rules = Vec::new();
        for entry in &self.syscalls {
            if entry.applies(to)? {
                rules.push(entry.rule()?);
            }
        }
        Ok(Filter {
            default: Action::parse(&self.default_action, self.default_errno_ret)?,
            archs: self.archs(to.arch)?,
            rules,
            flags: parse_flags(&self.flags)?,
        })
    }
    /// The architectures: those listed, or the machine's own with what the map says belongs to it. Ones that this
    /// machine's kernel cannot have are left out.
    fn archs(&self, native: Arch) -> Result<Vec<Arch>, SeccompError> {
        if !self.architectures.is_empty() && !self.arch_map.is_empty() {
            return Err(SeccompError::Invalid(
                "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' \
                 or 'archMap'"
                    .into(),
            ));
        }
        let mut archs = vec![native];
        let mut add = |names: &[String]| {
            for arch in names.iter().filter_map(|n| Arch::from_scmp(n)) {
                if !archs.contains(&arch) {
                    archs.push(arch);
                }
            }
        };
        add(&self.architectures);
        for map in &self.arch_map {
            if map.architecture == native.scmp() {
                add(&map.sub_architectures);
            }
        }
        Ok(archs)
    }
}

impl Entry {
    fn applies(&self, to: ResolveFor) -> Result<bool, SeccompError> {
        let arch = |list: &[String]| list.iter().any(|a| a == to.arch.goarch());
        let kernel = |gate: &Gate| -> Result<Option<bool>, SeccompError> {
            gate.min_kernel
                .as_deref()
                .filter(|v| !v.is_empty())
                .map(|v| parse_kernel(v).map(|min| to.kernel >= min))
                .transpose()
        };
        if let Some(gate) = &self.excludes {
            if gate.caps.iter().any(|c| to.caps.has(c)) || arch(&gate.arches) {
                return Ok(false);
            }
            if kernel(gate)? == Some(true) {
                return Ok(false);
            }
        }
        if let Some(gate) = &self.includes {
            if !gate.caps.iter().all(|c| to.caps.has(c)) {
                return Ok(false);
            }
            if !gate.arches.is_empty() && !arch(&gate.arches) {
                return Ok(false);
            }
            if kernel(gate)? == Some(false) {
                return Ok(false);
            }
        }
        Ok(true)
    }
    fn rule(&self) -> Result<Rule, SeccompError> {
        let single = self.name.as_deref().filter(|n| !n.is_empty());
        if single.is_some() && !self.names.is_empty() {
            return Err(SeccompError::Invalid(
                "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'".into(),
            ));
        }
        let names = match single {
            Some(name) => vec![name.to_owned()],
            None => self.names.clone(),
        };
        let conditions = self
            .args
            .iter()
            .map(|a| Condition::parse(a.index, a.value, a.value_two, &a.op))
            .collect::<Result<_, _>>()?;
        Ok(Rule {
            names,
            action: Action::parse(&self.action, self.errno_ret)?,
            conditions,
        })
    }
}

/// `SECCOMP_FILTER_FLAG_*` words. None at all means runc's default: leave speculation as it is.
fn parse_flags(words: &[String]) -> Result<u32, SeccompError> {
    if words.is_empty() {
        return Ok(flag::SPEC_ALLOW);
    }
    words.iter().try_fold(0, |bits, word| {
        Ok(bits
            | match word.as_str() {
                "SECCOMP_FILTER_FLAG_TSYNC" => flag::TSYNC,
                "SECCOMP_FILTER_FLAG_LOG" => flag::LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => flag::SPEC_ALLOW,
                other => return Err(SeccompError::Unsupported(format!("the flag {other}"))),
            })
    })
}

/// `4.8` -> (4, 8).
fn parse_kernel(text: &str) -> Result<(u32, u32), SeccompError> {
    let parse = || -> Option<(u32, u32)> {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    parse().ok_or_else(|| SeccompError::Invalid(format!("invalid kernel version: {text:?}")))
}
