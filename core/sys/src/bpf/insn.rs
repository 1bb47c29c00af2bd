//! eBPF instructions, written one by one: there are few, and a compiler for them would be a dependency of every build.
//! Source: `Documentation/bpf/standardization/instruction-set.rst`.

/// `struct bpf_insn`: opcode, registers, offset, immediate.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Insn {
    pub(crate) code: u8,
    pub(crate) regs: u8,
    pub(crate) off: i16,
    pub(crate) imm: i32,
}

pub(crate) mod op {
    //! Opcodes of `linux/bpf.h` that the programs use.
    pub(crate) const LD_IMM64: u8 = 0x18;
    pub(crate) const LDX_W: u8 = 0x61;
    pub(crate) const LDX_DW: u8 = 0x79;
    pub(crate) const ST_W: u8 = 0x62;
    pub(crate) const STX_W: u8 = 0x63;
    pub(crate) const ADD_IMM: u8 = 0x07;
    pub(crate) const AND32_IMM: u8 = 0x54;
    pub(crate) const RSH32_IMM: u8 = 0x74;
    pub(crate) const MOV_IMM: u8 = 0xb7;
    pub(crate) const MOV_REG: u8 = 0xbf;
    pub(crate) const MOV32_IMM: u8 = 0xb4;
    pub(crate) const MOV32_REG: u8 = 0xbc;
    pub(crate) const JNE_IMM: u8 = 0x55;
    pub(crate) const JEQ_IMM: u8 = 0x15;
    pub(crate) const JNE_REG: u8 = 0x5d;
    pub(crate) const CALL: u8 = 0x85;
    pub(crate) const EXIT: u8 = 0x95;
}

pub(crate) const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    let regs = if cfg!(target_endian = "little") {
        src << 4 | dst
    } else {
        dst << 4 | src
    };
    Insn {
        code,
        regs,
        off,
        imm,
    }
}
