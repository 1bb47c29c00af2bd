//! Runs containers: exit codes, signals, output, standard input, users, limits, namespaces.

mod common;

use common::*;

#[test]
fn exit_codes_and_output() {
    let m = Machine::new();
    let (record, output) = m.run(m.spec(&sh("echo out; echo err >&2; exit 7")));
    assert_eq!((record.code, record.signal, record.oom), (7, None, false));
    assert!(record.started_at > 0 && record.exited_at >= record.started_at);
    assert_eq!(output.lines().count(), 2);
    assert_eq!(m.run(m.spec(&["true"])).0.code, 0);
    assert_eq!(m.run(m.spec(&["/bin/false"])).0.code, 1);
}
