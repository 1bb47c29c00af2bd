//! Classic BPF as seccomp takes it: instructions, and the pieces a filter is put together from.

use super::compile::{Compare, Condition};

/// `struct sock_filter` of `linux/filter.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Insn {
    pub(super) code: u16,
    pub(super) jt: u8,
    pub(super) jf: u8,
    pub(super) k: u32,
}

/// Load a word of `struct seccomp_data` into the accumulator.
pub(super) const LD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JA: u16 = 0x05;
pub(super) const JEQ: u16 = 0x15;
pub(super) const JGT: u16 = 0x25;
pub(super) const JGE: u16 = 0x35;
pub(super) const RET: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
pub(super) const OFFSET_NR: u32 = 0;
pub(super) const OFFSET_ARCH: u32 = 4;
pub(super) const OFFSET_ARGS: u32 = 16;

pub(super) const fn stmt(code: u16, k: u32) -> Insn {
    Insn {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// `if A <op> k` { `yes` } else { `no` }, with as many instructions as the distances need.
pub(super) fn branch(op: u16, k: u32, yes: &[Insn], no: &[Insn]) -> Vec<Insn> {
    let mut out = Vec::with_capacity(yes.len() + no.len() + 2);
    if let Ok(far) = u8::try_from(no.len()) {
        out.push(Insn {
            code: op,
            jt: far,
            jf: 0,
            k,
        });
    } else {
        // Conditional jumps reach 255 instructions: jump over an unconditional one, which reaches all.
        out.push(Insn {
            code: op,
            jt: 0,
            jf: 1,
            k,
        });
        out.push(stmt(JA, u32::try_from(no.len()).unwrap_or(u32::MAX)));
    }
    out.extend_from_slice(no);
    out.extend_from_slice(yes);
    out
}

/// Where a comparison goes on.
#[derive(Clone, Copy)]
enum To {
    Next,
    True,
    False,
}

/// Code that falls through to `then` when all conditions hold, and otherwise jumps right behind it.
pub(super) fn all_hold(conditions: &[Condition], then: &[Insn]) -> Vec<Insn> {
    let mut tail = then.to_vec();
    for condition in conditions.iter().rev() {
        let mut code = comparison(condition);
        let len = code.len();
        let resolve = |at: usize, to: To| -> u8 {
            let target = match to {
                To::Next => at + 1,
                To::True => len,
                To::False => len + tail.len(),
            };
            // A rule has at most six conditions of six instructions.
            u8::try_from(target - at - 1).unwrap_or(u8::MAX)
        };
        let mut head: Vec<Insn> = code
            .drain(..)
            .enumerate()
            .map(|(at, (insn, yes, no))| Insn {
                jt: if insn.code & 7 == 5 {
                    resolve(at, yes)
                } else {
                    0
                },
                jf: if insn.code & 7 == 5 {
                    resolve(at, no)
                } else {
                    0
                },
                ..insn
            })
            .collect();
        head.append(&mut tail);
        tail = head;
    }
    tail
}

/// A 64-bit comparison in 32-bit halves.
fn comparison(condition: &Condition) -> Vec<(Insn, To, To)> {
    let (high_at, low_at) = halves(condition.index);
    let high = |v: u64| (v >> 32) as u32;
    let low = |v: u64| (v & 0xffff_ffff) as u32;
    let load = |at: u32| (stmt(LD, at), To::Next, To::Next);
    let mask = |k: u32| (stmt(AND, k), To::Next, To::Next);
    let jump = |op: u16, k: u32, yes: To, no: To| (stmt(op, k), yes, no);
    let value = condition.value;
    let ordered = |low_op: u16, yes: To, no: To| {
        vec![
            load(high_at),
            jump(JGT, high(value), yes, To::Next),
            jump(JEQ, high(value), To::Next, no),
            load(low_at),
            jump(low_op, low(value), yes, no),
        ]
    };
    match condition.compare {
        Compare::Eq => vec![
            load(high_at),
            jump(JEQ, high(value), To::Next, To::False),
            load(low_at),
            jump(JEQ, low(value), To::True, To::False),
        ],
        Compare::Ne => vec![
            load(high_at),
            jump(JEQ, high(value), To::Next, To::True),
            load(low_at),
            jump(JEQ, low(value), To::False, To::True),
        ],
        Compare::Gt => ordered(JGT, To::True, To::False),
        Compare::Ge => ordered(JGE, To::True, To::False),
        Compare::Lt => ordered(JGE, To::False, To::True),
        Compare::Le => ordered(JGT, To::False, To::True),
        Compare::MaskedEq { mask: bits } => {
            let wanted = value & bits;
            vec![
                load(high_at),
                mask(high(bits)),
                jump(JEQ, high(wanted), To::Next, To::False),
                load(low_at),
                mask(low(bits)),
                jump(JEQ, low(wanted), To::True, To::False),
            ]
        }
    }
}

/// Offsets of the high and low half of an argument.
fn halves(index: u8) -> (u32, u32) {
    let at = OFFSET_ARGS + 8 * u32::from(index);
    if cfg!(target_endian = "little") {
        (at + 4, at)
    } else {
        (at, at + 4)
    }
}

/// As the kernel reads it.
pub(super) fn to_bytes(program: &[Insn]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for insn in program {
        bytes.extend_from_slice(&insn.code.to_ne_bytes());
        bytes.extend_from_slice(&[insn.jt, insn.jf]);
        bytes.extend_from_slice(&insn.k.to_ne_bytes());
    }
    bytes
}
