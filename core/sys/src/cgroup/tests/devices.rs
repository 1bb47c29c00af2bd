//! Device rules: their text, the program made of them, and the kernel that runs it.

use super::*;
use crate::bpf::insn::{Insn, op};
use crate::cgroup::devices;

#[test]
fn device_rules_parse_and_print() {
    for text in ["c 10:200 rwm", "b *:* r", "c 5:* m"] {
        let rule = DeviceRule::parse(text, true).unwrap();
        assert_eq!(rule.to_string(), text);
    }
    assert_eq!(
        DeviceRule::parse("a *:* rwm", false).unwrap().to_string(),
        "a"
    );
    for bad in [
        "",
        "x 1:1 r",
        "c 1 r",
        "c 1:1",
        "c 1:1 q",
        "c 1:x r",
        "c 1:1 r r",
    ] {
        assert!(DeviceRule::parse(bad, true).is_none(), "{bad}");
    }
    let half = DeviceRule::parse("a 1:* r", true).unwrap();
    let lines: Vec<_> = devices::for_v1(&[half])
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(lines, ["c 1:* r", "b 1:* r"]);
}

#[test]
fn real_device_rules_refuse() {
    let own = Own::new("devices").expect("root with cgroups");
    own.0
        .set_devices(&[
            DeviceRule::everything(false),
            DeviceRule::parse("c 1:3 rwm", true).unwrap(),
            DeviceRule::parse("c 1:* m", true).unwrap(),
        ])
        .unwrap();
    assert_eq!(
        opens_inside(&own.0.v1_dirs(), own.0.v2_dir()),
        [true, false]
    );
}

/// Whether a process in those groups can open /dev/null and /dev/zero.
fn opens_inside(v1: &[PathBuf], v2: Option<PathBuf>) -> [bool; 2] {
    let dirs: Vec<PathBuf> = v1.iter().cloned().chain(v2).collect();
    ["/dev/null", "/dev/zero"].map(|device| {
        let mut script = String::new();
        for dir in &dirs {
            script += &format!("echo $$ >{}/cgroup.procs || exit 9; ", dir.display());
        }
        script += &format!("exec 3<{device}");
        let status = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert_ne!(status.code(), Some(9), "joining {dirs:?}");
        status.success()
    })
}

#[test]
fn the_device_program_works_on_the_unified_hierarchy() {
    let Some(unified) = here().and_then(|c| c.unified().map(Path::to_owned)) else {
        panic!("no unified hierarchy is mounted");
    };
    let dir = unified.join(format!("gantry-test-{}-bpf", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let rules = [
        DeviceRule::everything(false),
        DeviceRule::parse("c 1:* rw", true).unwrap(),
        DeviceRule::parse("c 1:5 r", false).unwrap(),
    ];
    devices::attach(fs::File::open(&dir).unwrap(), &rules).unwrap();
    let opens = opens_inside(&[], Some(dir.clone()));
    fs::remove_dir(&dir).unwrap();
    assert_eq!(opens, [true, false]);
}

/// Runs the device program for one access: (kind, access bits, major, minor).
fn interpret(program: &[Insn], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let mut r = [0u32; 6];
    let mut pc = 0i32;
    loop {
        let i = program[usize::try_from(pc).unwrap()];
        let (dst, src) = (usize::from(i.regs & 15), usize::from(i.regs >> 4));
        let imm = i.imm.cast_unsigned();
        pc += 1;
        let jump = |yes: bool| if yes { i32::from(i.off) } else { 0 };
        match i.code {
            op::LDX_W => {
                r[dst] = [access << 16 | kind, major, minor][usize::try_from(i.off / 4).unwrap()]
            }
            op::MOV32_REG => r[dst] = r[src],
            op::MOV32_IMM => r[dst] = imm,
            op::AND32_IMM => r[dst] &= imm,
            op::RSH32_IMM => r[dst] >>= imm,
            op::JNE_IMM => pc += jump(r[dst] != imm),
            op::JEQ_IMM => pc += jump(r[dst] == imm),
            op::JNE_REG => pc += jump(r[dst] != r[src]),
            op::EXIT => return r[0] == 1,
            other => panic!("opcode {other:#x}"),
        }
    }
}

#[test]
fn the_last_device_rule_that_fits_decides() {
    let rule = |text: &str, allow| DeviceRule::parse(text, allow).unwrap();
    let rules = [
        rule("c 9:9 rwm", true), // without effect: everything is refused afterwards
        DeviceRule::everything(false),
        rule("c *:* m", true),
        rule("c 1:3 rwm", true),
        rule("c 136:* rw", true),
        rule("b 8:1 r", true),
        rule("c 136:7 w", false),
    ];
    let program = devices::program(&rules);
    let (block, char, mknod, read, write) = (1, 2, 1, 2, 4);
    let allowed = |kind, access, major, minor| interpret(&program, kind, access, major, minor);
    assert!(!allowed(char, read, 9, 9));
    assert!(allowed(char, mknod, 9, 9));
    assert!(allowed(char, read | write | mknod, 1, 3));
    assert!(!allowed(char, read, 1, 5));
    assert!(allowed(char, read | write, 136, 0));
    assert!(!allowed(char, read | write | mknod, 136, 0));
    assert!(allowed(char, read, 136, 7));
    assert!(!allowed(char, read | write, 136, 7));
    assert!(allowed(block, read, 8, 1));
    assert!(!allowed(block, write, 8, 1));
    assert!(!allowed(block, mknod, 8, 1));
}
