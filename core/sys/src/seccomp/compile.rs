//! From a filter to a program: per architecture a binary search over the numbers of calls.

use std::collections::BTreeMap;

use super::arch::{X32_BIT, X86_MULTIPLEXED};
use super::bpf::{
    Insn, JEQ, JGE, LD, OFFSET_ARCH, OFFSET_NR, RET, all_hold, branch, stmt, to_bytes,
};
use super::{Arch, SeccompError};

/// The most instructions the kernel takes (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

const ENOSYS: u16 = libc::ENOSYS as u16;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The thread dies of SIGSYS.
    KillThread,
    /// The process dies of SIGSYS.
    KillProcess,
    /// The thread gets a SIGSYS it can handle.
    Trap,
    /// The call returns this error, at most 4095.
    Errno(u16),
    /// A tracer is told this number; without one the call returns `ENOSYS`.
    Trace(u16),
    /// The call is made and logged.
    Log,
    /// The call is made.
    Allow,
}

impl Action {
    /// From the OCI name and `errnoRet`, which is `EPERM` where it is missing.
    ///
    /// # Errors
    /// `SCMP_ACT_NOTIFY`, unknown words, an error number the kernel cannot return.
    pub fn parse(name: &str, errno: Option<u32>) -> Result<Self, SeccompError> {
        let number = || {
            u16::try_from(errno.unwrap_or(libc::EPERM.cast_unsigned()))
                .ok()
                .filter(|n| *n <= 4095)
                .ok_or_else(|| SeccompError::Invalid(format!("invalid errnoRet: {errno:?}")))
        };
        Ok(match name {
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Self::KillThread,
            "SCMP_ACT_KILL_PROCESS" => Self::KillProcess,
            "SCMP_ACT_TRAP" => Self::Trap,
            "SCMP_ACT_ERRNO" => Self::Errno(number()?),
            "SCMP_ACT_TRACE" => Self::Trace(number()?),
            "SCMP_ACT_LOG" => Self::Log,
            "SCMP_ACT_ALLOW" => Self::Allow,
            "SCMP_ACT_NOTIFY" => {
                return Err(SeccompError::Unsupported(
                    "the action SCMP_ACT_NOTIFY".into(),
                ));
            }
            other => {
                return Err(SeccompError::Invalid(format!(
                    "invalid seccomp action: {other:?}"
                )));
            }
        })
    }
    /// `SECCOMP_RET_*` with its data.
    #[must_use]
    pub fn ret(self) -> u32 {
        match self {
            Self::KillThread => 0,
            Self::KillProcess => 0x8000_0000,
            Self::Trap => 0x0003_0000,
            Self::Errno(n) => 0x0005_0000 | u32::from(n),
            Self::Trace(n) => 0x7ff0_0000 | u32::from(n),
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }
    fn refuses(self) -> bool {
        !matches!(self, Self::Allow | Self::Log | Self::Trace(_))
    }
}

/// How an argument is compared, as unsigned 64-bit numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the usual words")]
pub enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// The argument under the mask equals the value under the mask.
    MaskedEq {
        mask: u64,
    },
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Condition {
    /// 0..=5.
    pub index: u8,
    /// Compared with.
    pub value: u64,
    /// How.
    pub compare: Compare,
}

impl Condition {
    /// From the OCI fields; for `SCMP_CMP_MASKED_EQ` `value` is the mask and `value_two` what is wanted.
    ///
    /// # Errors
    /// An index or operator that does not exist.
    pub fn parse(index: u64, value: u64, value_two: u64, op: &str) -> Result<Self, SeccompError> {
        let index = u8::try_from(index)
            .ok()
            .filter(|i| *i < 6)
            .ok_or_else(|| SeccompError::Invalid(format!("invalid argument index: {index}")))?;
        let (compare, value) = match op {
            "SCMP_CMP_EQ" => (Compare::Eq, value),
            "SCMP_CMP_NE" => (Compare::Ne, value),
            "SCMP_CMP_LT" => (Compare::Lt, value),
            "SCMP_CMP_LE" => (Compare::Le, value),
            "SCMP_CMP_GT" => (Compare::Gt, value),
            "SCMP_CMP_GE" => (Compare::Ge, value),
            "SCMP_CMP_MASKED_EQ" => (Compare::MaskedEq { mask: value }, value_two),
            other => {
                return Err(SeccompError::Invalid(format!(
                    "invalid seccomp operator: {other:?}"
                )));
            }
        };
        Ok(Self {
            index,
            value,
            compare,
        })
    }
}

/// What happens to some calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Names of calls.
    pub names: Vec<String>,
    /// What happens.
    pub action: Action,
    /// When; empty: always. Two on one argument are alternatives.
    pub conditions: Vec<Condition>,
}

/// A filter for one container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    /// Where no rule says anything.
    pub default: Action,
    /// Architectures a process may use; the machine's own is always among them.
    pub archs: Vec<Arch>,
    /// In order.
    pub rules: Vec<Rule>,
    /// [`super::flag`] bits.
    pub flags: u32,
}

/// What the kernel is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// `struct sock_filter[]` in host byte order.
    pub bytes: Vec<u8>,
    /// [`super::flag`] bits.
    pub flags: u32,
}

/// What happens to one number.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Leaf {
    Always(Action),
    /// The first whose conditions all hold.
    When(Vec<(Vec<Condition>, Action)>),
}

/// Compiles a filter for a machine whose own architecture is `native`.
///
/// # Errors
/// [`SeccompError::TooLong`].
pub fn compile(filter: &Filter, native: Arch) -> Result<Program, SeccompError> {
    let wanted = |arch: Arch| arch == native || filter.archs.contains(&arch);
    let tree = |arch: Arch| -> Vec<Insn> { search(&ranges(filter, arch), filter.default) };
    let unknown = [stmt(RET, Action::KillProcess.ret())];
    let mut program = unknown.to_vec();
    for arch in [Arch::Arm, Arch::Aarch64, Arch::X86, Arch::X86_64] {
        let x32 = arch == Arch::X86_64 && wanted(Arch::X32);
        if !wanted(arch) && !x32 {
            continue;
        }
        let mut body = if wanted(arch) {
            tree(arch)
        } else {
            unknown.to_vec()
        };
        if arch == Arch::X86_64 {
            let high = if x32 {
                tree(Arch::X32)
            } else {
                unknown.to_vec()
            };
            body = branch(JGE, X32_BIT, &high, &body);
        }
        body.insert(0, stmt(LD, OFFSET_NR));
        program = branch(JEQ, arch.audit(), &body, &program);
    }
    program.insert(0, stmt(LD, OFFSET_ARCH));
    if program.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong(program.len()));
    }
    Ok(Program {
        bytes: to_bytes(&program),
        flags: filter.flags,
    })
}

/// The numbers of one architecture, cut where what happens changes: (first number, what happens from there on).
fn ranges(filter: &Filter, arch: Arch) -> Vec<(u32, Leaf)> {
    let calls = leaves(filter, arch);
    let base = if arch == Arch::X32 { X32_BIT } else { 0 };
    let default = Leaf::Always(filter.default);
    let mut cuts: Vec<(u32, Leaf)> = vec![(base, default.clone())];
    let mut put = |from: u32, leaf: Leaf| match cuts.last_mut() {
        Some((at, last)) if *at == from => *last = leaf,
        Some((_, last)) if *last == leaf => {}
        _ => cuts.push((from, leaf)),
    };
    let mut next = base;
    for (number, leaf) in calls {
        if number > next {
            put(next, default.clone());
        }
        put(number, leaf);
        next = number + 1;
    }
    let named = next > base;
    put(next, default);
    if named && filter.default.refuses() {
        put(next, Leaf::Always(Action::Errno(ENOSYS)));
    }
    cuts
}

/// What the rules say, by number, ascending.
fn leaves(filter: &Filter, arch: Arch) -> BTreeMap<u32, Leaf> {
    let mut calls = BTreeMap::new();
    for rule in &filter.rules {
        for name in &rule.names {
            if let Some(number) = arch.number(name) {
                add(&mut calls, number, rule);
            }
            if arch == Arch::X86 && rule.conditions.is_empty() {
                for (_, through, call) in X86_MULTIPLEXED.iter().filter(|(n, ..)| n == name) {
                    let conditions = vec![Condition {
                        index: 0,
                        value: *call,
                        compare: Compare::Eq,
                    }];
                    let number = arch.number(through).unwrap_or_default();
                    let rule = Rule {
                        names: Vec::new(),
                        action: rule.action,
                        conditions,
                    };
                    add(&mut calls, number, &rule);
                }
            }
        }
    }
    calls
}

fn add(calls: &mut BTreeMap<u32, Leaf>, number: u32, rule: &Rule) {
    let leaf = calls
        .entry(number)
        .or_insert_with(|| Leaf::When(Vec::new()));
    match leaf {
        Leaf::Always(_) => {}
        _ if rule.conditions.is_empty() => *leaf = Leaf::Always(rule.action),
        Leaf::When(list) => list.extend(
            alternatives(&rule.conditions)
                .into_iter()
                .map(|conditions| (conditions, rule.action)),
        ),
    }
}

/// Conditions on different arguments belong together; as soon as two are on the same one, each stands alone.
fn alternatives(conditions: &[Condition]) -> Vec<Vec<Condition>> {
    let repeated = conditions
        .iter()
        .enumerate()
        .any(|(at, c)| conditions[..at].iter().any(|d| d.index == c.index));
    if repeated {
        conditions.iter().map(|c| vec![*c]).collect()
    } else {
        vec![conditions.to_vec()]
    }
}

/// Binary search for the range that the number in the accumulator lies in.
fn search(ranges: &[(u32, Leaf)], default: Action) -> Vec<Insn> {
    match ranges {
        [] => vec![stmt(RET, default.ret())],
        [(_, leaf)] => decide(leaf, default),
        _ => {
            let middle = ranges.len() / 2;
            let (below, above) = ranges.split_at(middle);
            branch(
                JGE,
                above[0].0,
                &search(above, default),
                &search(below, default),
            )
        }
    }
}

/// Returns what a leaf says.
fn decide(leaf: &Leaf, default: Action) -> Vec<Insn> {
    match leaf {
        Leaf::Always(action) => vec![stmt(RET, action.ret())],
        Leaf::When(list) => {
            let mut code: Vec<Insn> = list
                .iter()
                .flat_map(|(conditions, action)| all_hold(conditions, &[stmt(RET, action.ret())]))
                .collect();
            code.push(stmt(RET, default.ret()));
            code
        }
    }
}
