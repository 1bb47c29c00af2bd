//! Groups of this machine.

use std::process::Child;

use super::*;

#[test]
fn a_group_in_use_here_is_updated_wholly_or_not_at_all() {
    let Some(own) = Own::new("update") else {
        eprintln!("no cgroups may be made here");
        return;
    };
    let Some(memory) = own.0.memory_dir().filter(|_| own.0.v2_dir().is_none()) else {
        return;
    };
    let number = |name: &str| -> i64 {
        let text = fs::read_to_string(memory.join(name)).unwrap();
        text.trim().parse().unwrap()
    };
    let both = |memory: i64, swap: i64| Limits {
        memory: Some(memory << 20),
        memory_swap: Some(swap << 20),
        ..Limits::default()
    };
    let read = || {
        (
            number("memory.limit_in_bytes") >> 20,
            number("memory.memsw.limit_in_bytes") >> 20,
        )
    };
    // Whatever the order of sizes, memory never exceeds memory and swap on the way.
    for (memory, swap) in [(10, 20), (30, 60), (10, 15), (12, 100), (50, 60), (8, 8)] {
        drop(own.0.update(&both(memory, swap)).unwrap());
        assert_eq!(read(), (memory, swap));
    }
    let refused = Limits {
        cpuset_cpus: Some("4000".into()),
        ..both(20, 40)
    };
    assert!(own.0.update(&refused).is_err());
    assert_eq!(read(), (8, 8));
}

fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

#[test]
fn a_real_group_limits_freezes_kills_and_goes() {
    let own = Own::new("life").expect("root with cgroups");
    let group = &own.0;
    group
        .apply(&Limits {
            memory: Some(64 << 20),
            memory_swap: Some(128 << 20),
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            pids: Some(20),
            ..Limits::default()
        })
        .unwrap();
    // Raising and lowering both work whatever the order.
    for mb in [256, 32] {
        group
            .apply(&Limits {
                memory: Some(mb << 20),
                memory_swap: Some(mb << 21),
                ..Limits::default()
            })
            .unwrap();
    }
    let mut child = sleeper();
    join(group, child.id());
    let pid = child.id().cast_signed();
    assert_eq!(group.pids().unwrap(), [pid]);
    let stats = group.stats().unwrap();
    assert_eq!(stats.memory.limit, 32 << 20);
    assert_eq!((stats.pids.current, stats.pids.limit), (1, Some(20)));
    assert!(!group.is_frozen().unwrap());
    group.freeze().unwrap();
    assert!(group.is_frozen().unwrap());
    group.thaw().unwrap();
    assert!(!group.is_frozen().unwrap());
    group.freeze().unwrap();
    group.kill_all().unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    group.remove().unwrap();
    assert!(!group.exists());
    group.remove().unwrap();
    group.kill_all().unwrap();
}
