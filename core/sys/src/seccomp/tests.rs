//! The compiler against a naive reading of the profile, call by call; and the real kernel.

use super::bpf::{AND, Insn, JA, JEQ, JGE, JGT, LD, RET};
use super::*;
use crate::caps::CapSet;

/// `struct seccomp_data`.
#[derive(Debug, Clone, Copy)]
struct Call {
    arch: Arch,
    nr: u32,
    args: [u64; 6],
}

impl Call {
    fn word(&self, at: u32) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&self.nr.to_ne_bytes());
        data.extend_from_slice(&self.arch.audit().to_ne_bytes());
        data.extend_from_slice(&0u64.to_ne_bytes());
        for arg in self.args {
            data.extend_from_slice(&arg.to_ne_bytes());
        }
        u32::from_ne_bytes(data[at as usize..][..4].try_into().unwrap())
    }
}

fn decode(program: &Program) -> Vec<Insn> {
    program
        .bytes
        .chunks_exact(8)
        .map(|b| Insn {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect()
}

/// Runs a program; also says how many instructions it took.
fn run(program: &[Insn], call: &Call) -> (u32, usize) {
    let (mut pc, mut a, mut steps) = (0usize, 0u32, 0);
    loop {
        let insn = program[pc];
        steps += 1;
        pc += 1;
        let jump = |yes: bool| usize::from(if yes { insn.jt } else { insn.jf });
        match insn.code {
            LD => a = call.word(insn.k),
            AND => a &= insn.k,
            JA => pc += insn.k as usize,
            JEQ => pc += jump(a == insn.k),
            JGT => pc += jump(a > insn.k),
            JGE => pc += jump(a >= insn.k),
            RET => return (insn.k, steps),
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn holds(c: &Condition, args: &[u64; 6]) -> bool {
    let arg = args[usize::from(c.index)];
    match c.compare {
        Compare::Eq => arg == c.value,
        Compare::Ne => arg != c.value,
        Compare::Lt => arg < c.value,
        Compare::Le => arg <= c.value,
        Compare::Gt => arg > c.value,
        Compare::Ge => arg >= c.value,
        Compare::MaskedEq { mask } => arg & mask == c.value & mask,
    }
}

/// The documented meaning, rule by rule. Knows nothing of numbers beyond the table or of multiplexers.
fn naive(filter: &Filter, name: &str, args: &[u64; 6]) -> Action {
    let mine: Vec<&Rule> = filter
        .rules
        .iter()
        .filter(|r| r.names.iter().any(|n| n == name))
        .collect();
    if let Some(rule) = mine.iter().find(|r| r.conditions.is_empty()) {
        return rule.action;
    }
    let matched = mine.iter().find(|r| {
        let mut indices: Vec<u8> = r.conditions.iter().map(|c| c.index).collect();
        indices.sort_unstable();
        indices.dedup();
        if indices.len() < r.conditions.len() {
            r.conditions.iter().any(|c| holds(c, args))
        } else {
            r.conditions.iter().all(|c| holds(c, args))
        }
    });
    matched.map_or(filter.default, |r| r.action)
}

fn names(arch: Arch) -> Vec<String> {
    let mut all: Vec<String> = syscalls::x86_64::Sysno::iter()
        .map(|s| s.name().to_owned())
        .collect();
    all.extend(syscalls::x86::Sysno::iter().map(|s| s.name().to_owned()));
    all.extend(syscalls::arm::Sysno::iter().map(|s| s.name().to_owned()));
    all.extend(syscalls::aarch64::Sysno::iter().map(|s| s.name().to_owned()));
    all.sort();
    all.dedup();
    all.retain(|n| arch.number(n).is_some());
    all
}

/// Values on both sides of everything the rules compare with, in the low and in the high half.
fn interesting(filter: &Filter) -> Vec<u64> {
    let mut values = vec![0, 1, u64::MAX, 1 << 32, 0x7e02_0000];
    for c in filter.rules.iter().flat_map(|r| &r.conditions) {
        for v in [c.value, c.value ^ (1 << 32)] {
            values.extend([v.wrapping_sub(1), v, v.wrapping_add(1)]);
        }
        if let Compare::MaskedEq { mask } = c.compare {
            values.extend([mask, mask & mask.wrapping_sub(1), !mask]);
        }
    }
    values.sort_unstable();
    values.dedup();
    values
}

fn resolve(caps: CapSet, arch: Arch) -> Filter {
    Profile::parse(DEFAULT_PROFILE)
        .unwrap()
        .resolve(ResolveFor {
            caps,
            arch,
            kernel: (6, 1),
        })
        .unwrap()
}

fn check(filter: &Filter, native: Arch) {
    let program = decode(&compile(filter, native).unwrap());
    let values = interesting(filter);
    for &arch in &filter.archs {
        let multiplexed = |n: &str| arch == Arch::X86 && (n == "socketcall" || n == "ipc");
        for name in names(arch).iter().filter(|n| !multiplexed(n)) {
            let nr = arch.number(name).unwrap();
            let named = filter.rules.iter().any(|r| r.names.contains(name));
            for &value in &values {
                let args = [value, !value, value, 0, value >> 1, value];
                let (got, _) = run(&program, &Call { arch, nr, args });
                let want = naive(filter, name, &args).ret();
                let beyond = !named && got == Action::Errno(38).ret();
                assert!(
                    got == want || beyond,
                    "{arch:?} {name}({args:x?}): {got:#x}, want {want:#x}"
                );
            }
        }
    }
}

#[test]
fn dockers_profile_means_what_it_says_for_every_call() {
    for native in [Arch::X86_64, Arch::Aarch64] {
        for caps in [CapSet::docker_default(), CapSet::ALL, CapSet::EMPTY] {
            check(&resolve(caps, native), native);
        }
    }
}

#[test]
fn every_operator_means_what_it_says() {
    let condition = |compare, value| Condition {
        index: 1,
        value,
        compare,
    };
    let other = Condition {
        index: 4,
        value: 3,
        compare: Compare::Gt,
    };
    let big = 0x1_8000_0001;
    let compares = [
        Compare::Eq,
        Compare::Ne,
        Compare::Lt,
        Compare::Le,
        Compare::Gt,
        Compare::Ge,
        Compare::MaskedEq {
            mask: 0xf0_0000_000f,
        },
    ];
    for compare in compares {
        for conditions in [
            vec![condition(compare, big)],
            vec![condition(compare, 7), other],
            vec![condition(compare, 7), condition(Compare::Eq, 9)],
        ] {
            let rule = Rule {
                names: vec!["read".into(), "write".into()],
                action: Action::Trap,
                conditions,
            };
            let fallback = Rule {
                names: vec!["write".into()],
                action: Action::Errno(5),
                conditions: vec![other],
            };
            let filter = Filter {
                default: Action::Allow,
                archs: vec![Arch::X86_64, Arch::X86, Arch::X32],
                rules: vec![rule, fallback],
                flags: 0,
            };
            check(&filter, Arch::X86_64);
        }
    }
}

#[test]
fn the_first_rule_without_conditions_wins() {
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
        {"names":["mkdir"],"action":"SCMP_ACT_ERRNO","args":[{"index":1,"value":1,"op":"SCMP_CMP_EQ"}]},
        {"names":["mkdir"],"action":"SCMP_ACT_LOG"},
        {"name":"mkdir","action":"SCMP_ACT_KILL_PROCESS"}]}"#;
    let to = ResolveFor {
        caps: CapSet::EMPTY,
        arch: Arch::X86_64,
        kernel: (6, 1),
    };
    let filter = Profile::parse(profile).unwrap().resolve(to).unwrap();
    assert_eq!(naive(&filter, "mkdir", &[1; 6]), Action::Log);
    check(&filter, Arch::X86_64);
}

#[test]
fn numbers_beyond_the_profile_are_enosys_and_strange_architectures_die() {
    let filter = resolve(CapSet::docker_default(), Arch::X86_64);
    let program = decode(&compile(&filter, Arch::X86_64).unwrap());
    let ret = |arch, nr| {
        run(
            &program,
            &Call {
                arch,
                nr,
                args: [0; 6],
            },
        )
        .0
    };
    assert_eq!(ret(Arch::X86_64, 999), Action::Errno(38).ret());
    assert_eq!(ret(Arch::X32, 0x4000_0000 + 999), Action::Errno(38).ret());
    assert_eq!(ret(Arch::Aarch64, 1), Action::KillProcess.ret());
    // A 64-bit call's number with the x32 bit is not that call where x32 has its own.
    assert_eq!(ret(Arch::X32, 0x4000_0000 + 59), Action::Errno(1).ret());
    assert_eq!(ret(Arch::X32, 0x4000_0000 + 520), Action::Allow.ret());
    let clone3 = Arch::X86_64.number("clone3").unwrap();
    assert_eq!(ret(Arch::X86_64, clone3), Action::Errno(38).ret());
    let only_64 = Filter {
        archs: vec![Arch::X86_64],
        ..filter
    };
    let program = decode(&compile(&only_64, Arch::X86_64).unwrap());
    let call = Call {
        arch: Arch::X32,
        nr: 0x4000_0000,
        args: [0; 6],
    };
    assert_eq!(run(&program, &call).0, Action::KillProcess.ret());
}

#[test]
fn i386_multiplexers_are_covered() {
    let filter = Filter {
        default: Action::Allow,
        archs: vec![Arch::X86_64, Arch::X86],
        rules: vec![Rule {
            names: vec!["bind".into(), "shmat".into()],
            action: Action::Errno(13),
            conditions: Vec::new(),
        }],
        flags: 0,
    };
    let program = decode(&compile(&filter, Arch::X86_64).unwrap());
    let ret = |name: &str, arg: u64| {
        let nr = Arch::X86.number(name).unwrap();
        let args = [arg, 0, 0, 0, 0, 0];
        run(
            &program,
            &Call {
                arch: Arch::X86,
                nr,
                args,
            },
        )
        .0
    };
    assert_eq!(ret("bind", 0), Action::Errno(13).ret());
    assert_eq!(ret("socketcall", 2), Action::Errno(13).ret());
    assert_eq!(ret("socketcall", 1), Action::Allow.ret());
    assert_eq!(ret("ipc", 21), Action::Errno(13).ret());
}

#[test]
fn the_search_is_short_and_the_program_fits() {
    let filter = resolve(CapSet::docker_default(), Arch::X86_64);
    let program = decode(&compile(&filter, Arch::X86_64).unwrap());
    assert!(program.len() < 2048, "{} instructions", program.len());
    for nr in 0..600 {
        let call = Call {
            arch: Arch::X86_64,
            nr,
            args: [u64::MAX; 6],
        };
        assert!(run(&program, &call).1 < 64);
    }
}

#[test]
fn what_is_not_done_is_refused() {
    let to = ResolveFor {
        caps: CapSet::EMPTY,
        arch: Arch::X86_64,
        kernel: (6, 1),
    };
    let refused = [
        r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"x"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":70000}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG",
            "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
        r#"{"defaultAction":"allow"}"#,
    ];
    for json in refused {
        let profile = Profile::parse(json).unwrap();
        assert!(profile.resolve(to).is_err(), "{json}");
    }
    assert!(Profile::parse("{").is_err());
    assert!(Profile::parse("[]").is_err());
}

/// Runs `body` in a forked child under the filter; its result is the child's exit status.
fn under(program: &Program, body: fn() -> i32) -> i32 {
    let fprog = libc::sock_fprog {
        len: u16::try_from(program.bytes.len() / 8).unwrap(),
        filter: program.bytes.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the child makes only system calls, on memory that exists before the fork, and leaves by _exit.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0);
        if pid == 0 {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let set = libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                program.flags,
                &raw const fprog,
            );
            libc::_exit(if set == 0 { body() } else { 99 });
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        if libc::WIFSIGNALED(status) {
            128 + libc::WTERMSIG(status)
        } else {
            libc::WEXITSTATUS(status)
        }
    }
}

/// The error number of a raw call, 0 when it went through.
fn errno_of(nr: libc::c_long, a: libc::c_ulong, b: libc::c_ulong) -> i32 {
    // SAFETY: only calls are made here that take plain numbers or are refused before they look at their arguments.
    if unsafe { libc::syscall(nr, a, b, 0, 0, 0) } >= 0 {
        0
    } else {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(-1)
    }
}

#[test]
fn the_kernel_takes_it_and_refuses_what_it_should() {
    let machine = rustix::system::uname();
    let native = Arch::from_machine(&machine.machine().to_string_lossy()).unwrap();
    let filter = resolve(CapSet::docker_default(), native);
    let program = compile(&filter, native).unwrap();
    // unshare(CLONE_NEWUTS) is refused as a whole, clone3 as unknown.
    assert_eq!(
        under(&program, || errno_of(libc::SYS_unshare, 0x0400_0000, 0)),
        libc::EPERM
    );
    assert_eq!(
        under(&program, || errno_of(libc::SYS_clone3, 0, 0)),
        libc::ENOSYS
    );
    assert_eq!(under(&program, || errno_of(1000, 0, 0)), libc::ENOSYS);
    assert_eq!(under(&program, || errno_of(libc::SYS_getpid, 0, 0)), 0);
    assert_eq!(under(&program, || errno_of(libc::SYS_umask, 0o22, 0)), 0);
    // personality(PER_LINUX) is allowed, another one is not; AF_ALG and AF_VSOCK sockets are not.
    assert_eq!(under(&program, || errno_of(libc::SYS_personality, 0, 0)), 0);
    assert_eq!(
        under(&program, || errno_of(libc::SYS_personality, 1, 0)),
        libc::EPERM
    );
    let datagram = libc::SOCK_DGRAM as libc::c_ulong;
    assert_eq!(datagram, 2);
    assert_eq!(under(&program, || errno_of(libc::SYS_socket, 1, 2)), 0);
    assert_eq!(
        under(&program, || errno_of(libc::SYS_socket, 40, 2)),
        libc::EPERM
    );
}

#[test]
fn a_killing_rule_kills() {
    let filter = Filter {
        default: Action::Allow,
        archs: Vec::new(),
        rules: vec![Rule {
            names: vec!["sync".into()],
            action: Action::KillProcess,
            conditions: Vec::new(),
        }],
        flags: flag::LOG,
    };
    let machine = rustix::system::uname();
    let native = Arch::from_machine(&machine.machine().to_string_lossy()).unwrap();
    let program = compile(&filter, native).unwrap();
    let died = under(&program, || errno_of(libc::SYS_sync, 0, 0));
    assert_eq!(died, 128 + libc::SIGSYS);
}
