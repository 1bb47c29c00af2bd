//! The connection, against a monitor that says what it is told to.

use gantry_monitor::protocol::Stage;
use std::io::Write;
use std::time::Duration;

use super::*;

/// A control connection and the monitor's end of it.
fn pair() -> (Control, StdStream) {
    let (ours, theirs) = StdStream::pair().unwrap();
    (Control::new(ours, None).unwrap(), theirs)
}

fn tell(monitor: &mut StdStream, seq: u64, message: Message) {
    let bytes = encode(&FromMonitor { seq, message }).unwrap();
    monitor.write_all(&bytes).unwrap();
}

fn exec() -> Request {
    Request::Exec {
        id: "x".into(),
        tty: false,
        plan: Vec::new(),
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(30);
    tokio::time::timeout(limit, what).await.expect("it hangs")
}

#[tokio::test]
async fn an_end_may_overtake_the_begin() {
    let (control, mut monitor) = pair();
    let exited = Message::ExecExited {
        code: 3,
        signal: None,
    };
    tell(&mut monitor, 1, exited.clone());
    // Nobody had asked for anything yet: that is ignored, too.
    let asked = control.exec(exec(), &[]);
    let answer = async {
        while control.shared.waiters.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        tell(&mut monitor, 1, exited);
        tell(&mut monitor, 1, Message::ExecStarted { pid: 7 });
    };
    let (got, ()) = within(async { tokio::join!(asked, answer) }).await;
    let (answer, mut end) = got.unwrap();
    assert_eq!(answer.message, Message::ExecStarted { pid: 7 });
    let end = *within(end.wait_for(Option::is_some)).await.unwrap();
    assert_eq!(end, Some(Ok((3, None))));
    assert!(control.shared.waiters.lock().is_empty());
}

#[tokio::test]
async fn a_monitor_that_hangs_up_leaves_nobody_waiting() {
    let (control, mut monitor) = pair();
    let asked = control.exec(exec(), &[]);
    let started = async {
        while control.shared.waiters.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        tell(&mut monitor, 1, Message::ExecStarted { pid: 7 });
    };
    let (got, ()) = within(async { tokio::join!(asked, started) }).await;
    let (_, mut end) = got.unwrap();
    let info = control.ask(Request::Info);
    let (info, ()) = within(async { tokio::join!(info, async { drop(monitor) }) }).await;
    assert!(matches!(info, Err(RuntimeError::NotRunning)));
    let end = *within(end.wait_for(Option::is_some)).await.unwrap();
    assert_eq!(end, Some(Err(())));
    within(control.closed()).await;
    assert!(control.is_over());
    let late = within(control.ask(Request::Info)).await;
    assert!(matches!(late, Err(RuntimeError::NotRunning)));
}

#[tokio::test]
async fn nonsense_ends_the_connection() {
    let (control, mut monitor) = pair();
    monitor.write_all(&[3, 0, 0, 0, 0xc1, 0xc1, 0xc1]).unwrap();
    within(control.closed()).await;
    assert!(matches!(*control.end().borrow(), End::Lost));
}

#[tokio::test]
async fn the_first_connection_tells_of_the_creation() {
    let (ours, mut monitor) = StdStream::pair().unwrap();
    let (first, outcome) = oneshot::channel();
    let _control = Control::new(ours, Some(first)).unwrap();
    let failure = Failure {
        stage: Stage::Mount,
        errno: 2,
        message: "x".into(),
    };
    tell(&mut monitor, 0, Message::CreateFailed(failure.clone()));
    assert_eq!(within(outcome).await.unwrap(), Err(failure));
}
