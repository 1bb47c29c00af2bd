//! Prints what a start costs, step by step. Not a test of anything: run it by name with `--ignored --nocapture`.

use std::time::Instant;

use gantry_monitor::plan::*;
use gantry_monitor::protocol::*;

use crate::common::*;

#[test]
#[ignore = "prints numbers"]
fn a_start() {
    let m = Machine::new();
    let mut times: [Vec<u128>; 4] = Default::default();
    for _ in 0..40 {
        let mut spec = m.spec(&["true"]);
        spec.launch.namespaces.cgroup = Namespace::New;
        m.with_cgroups(&mut spec);
        let begin = Instant::now();
        let mut c = m.create(spec);
        let created = begin.elapsed();
        c.start();
        let started = begin.elapsed();
        c.control.event();
        let exited = begin.elapsed();
        for (list, time) in
            times
                .iter_mut()
                .zip([created, started - created, exited - started, exited])
        {
            list.push(time.as_micros());
        }
    }
    for (list, name) in times
        .iter_mut()
        .zip(["created", "started", "exited", "total"])
    {
        list.sort_unstable();
        let (median, most) = (list[list.len() / 2], list[list.len() - 1]);
        println!(
            "{name}: median {median} us, least {} us, most {most} us",
            list[0]
        );
    }
    let mut c = m.start(m.spec(&["sleep", "1000"]));
    let mut times = Vec::new();
    for _ in 0..40 {
        let begin = Instant::now();
        c.exec(process(&["true"])).unwrap();
        times.push(begin.elapsed().as_micros());
    }
    times.sort_unstable();
    println!(
        "exec: median {} us, least {} us",
        times[times.len() / 2],
        times[0]
    );
    assert!(matches!(c.control.ask(Request::Info), Message::Info(_)));
    c.kill();
}

#[test]
#[ignore = "prints numbers"]
fn output() {
    let m = Machine::new();
    let line = format!("{}\n", "x".repeat(63));
    std::fs::write(m.lower().join("data"), line.repeat(50 << 14)).unwrap();
    for log in [true, false] {
        let mut spec = m.spec(&["cat", "/data"]);
        if !log {
            spec.launch.log = None;
        }
        let mut c = m.create(spec);
        let begin = Instant::now();
        c.start();
        c.exited();
        println!(
            "50 MB in lines of 64 bytes, log {log}: {} ms",
            begin.elapsed().as_millis()
        );
    }
}
