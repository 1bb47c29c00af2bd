//! Seccomp filters between Docker's profiles, the OCI form and the compiled program; each made once.

use std::sync::{Arc, OnceLock};

use gantry_sys::caps::CapSet;
use gantry_sys::host::HostFacts;
use gantry_sys::seccomp::{
    Action, Arch, Compare, Condition, DEFAULT_PROFILE, Filter, Profile, Program, ResolveFor, Rule,
    SeccompError, compile, flag,
};
use oci_spec::runtime as oci;
use parking_lot::Mutex;

use crate::spec::SpecError;

/// How many filters and programs are kept; containers of one engine share very few.
const KEPT: usize = 32;

/// One thing made from another, the latest few of them.
type Cache<K, V> = Mutex<Vec<(K, Arc<V>)>>;

/// Filters by what they were made from, programs by their filter.
#[derive(Debug)]
pub(crate) struct Seccomp {
    /// Docker's, read when it is asked for.
    default: OnceLock<Profile>,
    arch: Option<Arch>,
    kernel: (u32, u32),
    filters: Cache<(Option<String>, CapSet), oci::LinuxSeccomp>,
    programs: Cache<oci::LinuxSeccomp, Program>,
}

impl From<SeccompError> for SpecError {
    fn from(e: SeccompError) -> Self {
        Self::Seccomp(e.to_string())
    }
}

impl From<oci_spec::OciSpecError> for SpecError {
    fn from(e: oci_spec::OciSpecError) -> Self {
        Self::Invalid(e.to_string())
    }
}

impl Seccomp {
    pub(crate) fn new(host: &HostFacts) -> Result<Self, SpecError> {
        Ok(Self {
            default: OnceLock::new(),
            arch: Arch::from_machine(&host.machine),
            kernel: host.kernel,
            filters: Mutex::default(),
            programs: Mutex::default(),
        })
    }
    fn default(&self) -> Result<&Profile, SpecError> {
        if let Some(profile) = self.default.get() {
            return Ok(profile);
        }
        let profile = Profile::parse(DEFAULT_PROFILE)?;
        Ok(self.default.get_or_init(|| profile))
    }
    fn arch(&self) -> Result<Arch, SpecError> {
        self.arch.ok_or_else(|| {
            SpecError::Seccomp(
                "seccomp: no system call tables for this machine's architecture".into(),
            )
        })
    }
    /// The OCI form of a profile (`None`: Docker's default) for a container with those capabilities; `None` for a profile
    /// that says nothing.
    pub(crate) fn filter(
        &self,
        profile: Option<&str>,
        caps: CapSet,
    ) -> Result<Option<Arc<oci::LinuxSeccomp>>, SpecError> {
        let to = ResolveFor {
            caps,
            arch: self.arch()?,
            kernel: self.kernel,
        };
        let known = |key: &(Option<String>, CapSet)| key.0.as_deref() == profile && key.1 == caps;
        if let Some(filter) = find(&self.filters, known) {
            return Ok(Some(filter));
        }
        let own = profile.map(Profile::parse).transpose()?;
        if own.as_ref().is_some_and(Profile::is_empty) {
            return Ok(None);
        }
        let filter = match own {
            Some(own) => own.resolve(to)?,
            None => self.default()?.resolve(to)?,
        };
        let key = (profile.map(str::to_owned), caps);
        Ok(Some(keep(&self.filters, key, to_oci(&filter)?)))
    }
    /// The program of a filter.
    pub(crate) fn program(&self, filter: &oci::LinuxSeccomp) -> Result<Arc<Program>, SpecError> {
        let arch = self.arch()?;
        if let Some(program) = find(&self.programs, |key| key == filter) {
            return Ok(program);
        }
        let program = compile(&from_oci(filter)?, arch)?;
        Ok(keep(&self.programs, filter.clone(), program))
    }
}

fn find<K, V>(cache: &Cache<K, V>, known: impl Fn(&K) -> bool) -> Option<Arc<V>> {
    let list = cache.lock();
    let found = list.iter().find(|(key, _)| known(key));
    found.map(|(_, value)| Arc::clone(value))
}

/// Keeps what was made outside the lock: two at once make the same.
fn keep<K, V>(cache: &Cache<K, V>, key: K, value: V) -> Arc<V> {
    let value = Arc::new(value);
    let mut list = cache.lock();
    if list.len() >= KEPT {
        list.remove(0);
    }
    list.push((key, Arc::clone(&value)));
    value
}

fn to_oci(filter: &Filter) -> Result<oci::LinuxSeccomp, SpecError> {
    let (action, errno) = action_to_oci(filter.default);
    let mut out = oci::LinuxSeccomp::default();
    out.set_default_action(action);
    out.set_default_errno_ret(errno);
    let archs = filter.archs.iter().map(|a| word(a.scmp()));
    out.set_architectures(Some(archs.collect::<Result<_, _>>()?));
    // Leaving speculation alone is every runtime's default; older ones do not know the word.
    let flags: Vec<oci::LinuxSeccompFilterFlag> = [
        (flag::LOG, oci::LinuxSeccompFilterFlag::SeccompFilterFlagLog),
        (
            flag::TSYNC,
            oci::LinuxSeccompFilterFlag::SeccompFilterFlagTsync,
        ),
        (
            flag::SPEC_ALLOW,
            oci::LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow,
        ),
    ]
    .into_iter()
    .filter(|(bit, _)| filter.flags & bit != 0)
    .map(|(_, word)| word)
    .collect();
    out.set_flags((filter.flags != flag::SPEC_ALLOW).then_some(flags));
    let rules = filter.rules.iter().map(rule_to_oci);
    out.set_syscalls(Some(rules.collect::<Result<_, _>>()?));
    Ok(out)
}

/// One of the OCI words.
fn word<T: std::str::FromStr>(text: &str) -> Result<T, SpecError> {
    text.parse()
        .map_err(|_| SpecError::Seccomp(format!("seccomp: no OCI word for {text}")))
}

fn action_to_oci(action: Action) -> (oci::LinuxSeccompAction, Option<u32>) {
    use oci::LinuxSeccompAction as A;
    match action {
        Action::KillThread => (A::ScmpActKillThread, None),
        Action::KillProcess => (A::ScmpActKillProcess, None),
        Action::Trap => (A::ScmpActTrap, None),
        Action::Errno(n) => (A::ScmpActErrno, Some(n.into())),
        Action::Trace(n) => (A::ScmpActTrace, Some(n.into())),
        Action::Log => (A::ScmpActLog, None),
        Action::Allow => (A::ScmpActAllow, None),
    }
}

fn rule_to_oci(rule: &Rule) -> Result<oci::LinuxSyscall, SpecError> {
    let (action, errno) = action_to_oci(rule.action);
    let mut out = oci::LinuxSyscall::default();
    out.set_names(rule.names.clone());
    out.set_action(action);
    out.set_errno_ret(errno);
    let args = rule.conditions.iter().map(condition_to_oci);
    let args: Vec<_> = args.collect::<Result<_, _>>()?;
    out.set_args((!args.is_empty()).then_some(args));
    Ok(out)
}

fn condition_to_oci(condition: &Condition) -> Result<oci::LinuxSeccompArg, SpecError> {
    use oci::LinuxSeccompOperator as O;
    let (op, value, two) = match condition.compare {
        Compare::Eq => (O::ScmpCmpEq, condition.value, None),
        Compare::Ne => (O::ScmpCmpNe, condition.value, None),
        Compare::Lt => (O::ScmpCmpLt, condition.value, None),
        Compare::Le => (O::ScmpCmpLe, condition.value, None),
        Compare::Gt => (O::ScmpCmpGt, condition.value, None),
        Compare::Ge => (O::ScmpCmpGe, condition.value, None),
        Compare::MaskedEq { mask } => (O::ScmpCmpMaskedEq, mask, Some(condition.value)),
    };
    let mut out = oci::LinuxSeccompArgBuilder::default()
        .index(usize::from(condition.index))
        .value(value)
        .op(op);
    if let Some(two) = two {
        out = out.value_two(two);
    }
    Ok(out.build()?)
}

fn from_oci(seccomp: &oci::LinuxSeccomp) -> Result<Filter, SpecError> {
    if seccomp.listener_path().is_some() {
        return Err(SpecError::Unsupported("seccomp listenerPath".into()));
    }
    let archs = seccomp.architectures().iter().flatten();
    let mut flags = 0;
    for word in seccomp.flags().iter().flatten() {
        flags |= match word {
            oci::LinuxSeccompFilterFlag::SeccompFilterFlagLog => flag::LOG,
            oci::LinuxSeccompFilterFlag::SeccompFilterFlagTsync => flag::TSYNC,
            oci::LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => flag::SPEC_ALLOW,
            oci::LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                return Err(SpecError::Unsupported(format!("seccomp flag {word}")));
            }
        };
    }
    if seccomp.flags().is_none() {
        flags = flag::SPEC_ALLOW;
    }
    let rules = seccomp.syscalls().iter().flatten().map(rule_from_oci);
    Ok(Filter {
        default: Action::parse(
            &seccomp.default_action().to_string(),
            seccomp.default_errno_ret(),
        )?,
        archs: archs
            .filter_map(|a| Arch::from_scmp(&a.to_string()))
            .collect(),
        rules: rules.collect::<Result<_, _>>()?,
        flags,
    })
}

fn rule_from_oci(rule: &oci::LinuxSyscall) -> Result<Rule, SpecError> {
    let conditions = rule.args().iter().flatten().map(|a| {
        Condition::parse(
            a.index() as u64,
            a.value(),
            a.value_two().unwrap_or_default(),
            &a.op().to_string(),
        )
    });
    Ok(Rule {
        names: rule.names().clone(),
        action: Action::parse(&rule.action().to_string(), rule.errno_ret())?,
        conditions: conditions.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
        "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],
        "flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[
        {"names":["read"],"action":"SCMP_ACT_ALLOW"},{"names":["write"],"action":"SCMP_ACT_KILL"},
        {"names":["open"],"action":"SCMP_ACT_KILL_PROCESS"},{"names":["close"],"action":"SCMP_ACT_TRAP"},
        {"names":["stat"],"action":"SCMP_ACT_TRACE","errnoRet":7},{"names":["poll"],"action":"SCMP_ACT_LOG"},
        {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[
          {"index":0,"value":5,"valueTwo":4,"op":"SCMP_CMP_MASKED_EQ"},{"index":1,"value":1,"op":"SCMP_CMP_NE"},
          {"index":2,"value":1,"op":"SCMP_CMP_LT"},{"index":3,"value":1,"op":"SCMP_CMP_LE"},
          {"index":4,"value":1,"op":"SCMP_CMP_GE"},{"index":5,"value":1,"op":"SCMP_CMP_GT"}]}]}"#;

    #[test]
    fn the_oci_form_says_the_same() {
        let to = ResolveFor {
            caps: CapSet::docker_default(),
            arch: Arch::X86_64,
            kernel: (6, 1),
        };
        for json in [DEFAULT_PROFILE, MIXED] {
            let filter = Profile::parse(json).unwrap().resolve(to).unwrap();
            let there = to_oci(&filter).unwrap();
            assert_eq!(from_oci(&there).unwrap(), filter);
            // And it survives the file that foreign runtimes read.
            let text = serde_json::to_string(&there).unwrap();
            let back: oci::LinuxSeccomp = serde_json::from_str(&text).unwrap();
            assert_eq!(back, there);
        }
    }

    #[test]
    fn programs_are_made_once() {
        let host = crate::tests::host();
        let seccomp = Seccomp::new(&host).unwrap();
        let filter = |caps| seccomp.filter(None, caps).unwrap().unwrap();
        let a = filter(CapSet::docker_default());
        let b = filter(CapSet::docker_default());
        assert!(Arc::ptr_eq(&a, &b));
        let c = filter(CapSet::ALL);
        let nothing = seccomp.filter(Some("{}"), CapSet::ALL).unwrap();
        assert!(nothing.is_none(), "Docker takes this for no filter");
        assert_ne!(a, c);
        let p = seccomp.program(&a).unwrap();
        assert!(Arc::ptr_eq(&p, &seccomp.program(&a).unwrap()));
        assert_ne!(p.bytes, seccomp.program(&c).unwrap().bytes);
        for n in 0..2 * KEPT {
            let profile = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":{n}}}"#);
            seccomp.filter(Some(&profile), CapSet::EMPTY).unwrap();
        }
        assert_eq!(seccomp.filters.lock().len(), KEPT);
    }
}
