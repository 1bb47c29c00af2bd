//! Connections.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::{Counted, Relays, Way};

/// How long a container may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes under way in each direction of a connection, at most.
const BUFFER: usize = 32 * 1024;

pub(super) async fn serve(listener: TcpListener, relays: Rc<Relays>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(spawn_local(relay(client, Rc::clone(&relays)))),
            // Out of descriptors, say: later is better.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn relay(mut client: TcpStream, relays: Rc<Relays>) {
    let way = client
        .local_addr()
        .ok()
        .and_then(|at| relays.way(false, at));
    let Some(Way { target, to }) = way else {
        return reset(&client);
    };
    // Names need descriptors as well, and so do other sandboxes.
    let most = most();
    let Some(_counted) = Counted::one(&relays.connections, &to.connections, most) else {
        return reset(&client);
    };
    let work = async {
        let Ok(Ok(mut server)) = timeout(PATIENCE, TcpStream::connect(target)).await else {
            return reset(&client);
        };
        for end in [&client, &server] {
            // What one side sends at once the other gets at once, and one that vanished is noticed.
            let _ = end.set_nodelay(true);
            let _ = keep_alive(end);
        }
        let copied = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await;
        if copied.is_err() {
            reset(&client);
            reset(&server);
        }
    };
    tokio::select! {
        () = work => {}
        () = to.gone.notified() => {}
    }
}

/// How many there are at most: a quarter of the descriptors that there may be, each with two.
fn most() -> usize {
    super::descriptors() / 4
}

fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    use rustix::net::sockopt;
    const EVERY: Duration = Duration::from_secs(15);
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, EVERY)?;
    sockopt::set_tcp_keepintvl(stream, EVERY)
}

/// Has the connection end with a reset instead of an end of data.
fn reset(stream: &TcpStream) {
    // Without, the other side sees an ordinary end.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}
