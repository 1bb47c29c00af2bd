//! Which device nodes a group's processes may use: version 1 by control files, version 2 by an eBPF program written
//! here instruction by instruction.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use crate::bpf::insn::{Insn, insn, op};
use crate::bpf::{self, Use};

/// The kind of device a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Both kinds.
    All,
    /// Character devices.
    Char,
    /// Block devices.
    Block,
}

/// What may be done with a device: a set of `r`, `w`, `m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceAccess(u32);

impl DeviceAccess {
    /// Everything.
    pub const ALL: Self = Self(7);
    const MKNOD: u32 = 1;
    const READ: u32 = 2;
    const WRITE: u32 = 4;

    /// From letters of `rwm`; `None` for others, or none at all.
    #[must_use]
    pub fn parse(letters: &str) -> Option<Self> {
        let bits = letters.chars().try_fold(0, |bits, c| {
            Some(
                bits | match c {
                    'r' => Self::READ,
                    'w' => Self::WRITE,
                    'm' => Self::MKNOD,
                    _ => return None,
                },
            )
        })?;
        (bits != 0).then_some(Self(bits))
    }
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::MKNOD, 'm')] {
            if self.0 & bit != 0 {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// One rule; of several that fit, the last one decides. Without any that fits, access is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether it allows.
    pub allow: bool,
    /// Which kind.
    pub kind: DeviceKind,
    /// `None`: all.
    pub major: Option<u32>,
    /// `None`: all.
    pub minor: Option<u32>,
    /// What for.
    pub access: DeviceAccess,
}

impl DeviceRule {
    /// The rule that is for everything.
    #[must_use]
    pub fn everything(allow: bool) -> Self {
        Self {
            allow,
            kind: DeviceKind::All,
            major: None,
            minor: None,
            access: DeviceAccess::ALL,
        }
    }
    /// From Docker's and the kernel's notation: `c 10:200 rwm`, `b *:* r`, `a *:* rwm`.
    #[must_use]
    pub fn parse(text: &str, allow: bool) -> Option<Self> {
        let mut words = text.split_whitespace();
        let kind = match words.next()? {
            "a" => DeviceKind::All,
            "c" => DeviceKind::Char,
            "b" => DeviceKind::Block,
            _ => return None,
        };
        let number = |word: &str| match word {
            "*" => Some(None),
            digits => digits.parse().ok().map(Some),
        };
        let (major, minor) = words.next()?.split_once(':')?;
        let rule = Self {
            allow,
            kind,
            major: number(major)?,
            minor: number(minor)?,
            access: DeviceAccess::parse(words.next()?)?,
        };
        words.next().is_none().then_some(rule)
    }
    fn is_everything(&self) -> bool {
        self.kind == DeviceKind::All
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == DeviceAccess::ALL
    }
}

impl fmt::Display for DeviceRule {
    /// As `devices.allow` and `devices.deny` take it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_everything() {
            return f.write_str("a");
        }
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let kind = match self.kind {
            DeviceKind::All => 'a',
            DeviceKind::Char => 'c',
            DeviceKind::Block => 'b',
        };
        let (major, minor) = (number(self.major), number(self.minor));
        write!(f, "{kind} {major}:{minor} {}", self.access)
    }
}

/// Rules as version 1 can take them: it reads `a` as everything whatever follows, so a rule for both kinds becomes two.
pub(super) fn for_v1(rules: &[DeviceRule]) -> Vec<DeviceRule> {
    let both = |rule: &DeviceRule| match rule.kind {
        DeviceKind::All if !rule.is_everything() => [DeviceKind::Char, DeviceKind::Block]
            .map(|kind| DeviceRule { kind, ..*rule })
            .to_vec(),
        _ => vec![*rule],
    };
    rules.iter().flat_map(both).collect()
}

/// The program for some rules, over `struct bpf_cgroup_dev_ctx`: the last rule is asked first.
pub(super) fn program(rules: &[DeviceRule]) -> Vec<Insn> {
    let mut out = vec![
        insn(op::LDX_W, 2, 1, 0, 0), // r2 = access_type
        insn(op::MOV32_REG, 3, 2, 0, 0),
        insn(op::AND32_IMM, 2, 0, 0, 0xffff), // r2 = kind
        insn(op::RSH32_IMM, 3, 0, 0, 16),     // r3 = access
        insn(op::LDX_W, 4, 1, 4, 0),          // r4 = major
        insn(op::LDX_W, 5, 1, 8, 0),          // r5 = minor
    ];
    // What lies before a rule for everything can never be asked; the verifier refuses such code.
    let last = rules.iter().rposition(DeviceRule::is_everything);
    for rule in rules[last.unwrap_or(0)..].iter().rev() {
        out.extend(block(rule));
    }
    if last.is_none() {
        out.extend([insn(op::MOV32_IMM, 0, 0, 0, 0), insn(op::EXIT, 0, 0, 0, 0)]);
    }
    out
}

/// Returns what one rule says if it fits, else falls through.
fn block(rule: &DeviceRule) -> Vec<Insn> {
    let mut tests: Vec<Insn> = Vec::new();
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => tests.push(insn(op::JNE_IMM, 2, 0, 0, 1)),
        DeviceKind::Char => tests.push(insn(op::JNE_IMM, 2, 0, 0, 2)),
    }
    if rule.access != DeviceAccess::ALL {
        let bits = rule.access.0.cast_signed();
        tests.push(insn(op::MOV32_REG, 1, 3, 0, 0));
        tests.push(insn(op::AND32_IMM, 1, 0, 0, bits));
        // An allowing rule must cover all that is wanted, a refusing one any of it.
        tests.push(if rule.allow {
            insn(op::JNE_REG, 1, 3, 0, 0)
        } else {
            insn(op::JEQ_IMM, 1, 0, 0, 0)
        });
    }
    for (register, number) in [(4, rule.major), (5, rule.minor)] {
        if let Some(number) = number {
            tests.push(insn(op::JNE_IMM, register, 0, 0, number.cast_signed()));
        }
    }
    let len = tests.len() + 2;
    for (at, test) in tests.iter_mut().enumerate() {
        if test.code & 7 == 5 {
            test.off = i16::try_from(len - at - 1).unwrap_or(i16::MAX);
        }
    }
    tests.push(insn(op::MOV32_IMM, 0, 0, 0, i32::from(rule.allow)));
    tests.push(insn(op::EXIT, 0, 0, 0, 0));
    tests
}

/// Loads the program of some rules and attaches it to a group of the unified hierarchy, beside what ancestors have:
/// all of them must allow.
///
/// # Errors
/// Those of `bpf(2)`: `EPERM` without `CAP_BPF`/`CAP_SYS_ADMIN`.
pub(super) fn attach(group: impl AsFd, rules: &[DeviceRule]) -> io::Result<()> {
    let program = bpf::load(Use::DEVICES, "gantry_devices", &program(rules))?;
    bpf::attach(Use::DEVICES, group, program)
}
