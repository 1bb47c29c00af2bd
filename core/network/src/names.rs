//! The service's side of `gantry-netd`: telling it names, and starting it again when it is gone.

mod sockets;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use gantry_netd::{Client, ClientError, Foreign, Listeners, PROTOCOL, Relay, SandboxNames};
use parking_lot::Mutex;

use crate::firewall::Firewall;
use crate::{NetworkError, Result};
use sockets::sockets;

#[derive(Debug, Default)]
struct State {
    client: Option<Client>,
    known: HashMap<String, (SandboxNames, Arc<OwnedFd>)>,
    /// What is relayed to sandboxes.
    relays: HashMap<String, Vec<Relay>>,
    /// By driver and network, the members on other hosts.
    foreign: HashMap<String, HashMap<String, Vec<Foreign>>>,
    /// Networks whose members on other hosts netd knows as they are now.
    told: HashSet<String>,
}

impl State {
    /// The networks that a sandbox is on, of which netd does not know who is on other hosts.
    fn untold(&self, names: &SandboxNames) -> Vec<(String, Vec<Foreign>)> {
        let networks = names.memberships.iter().map(|m| &m.network);
        let untold = networks.filter(|network| !self.told.contains(*network));
        let known = untold.filter_map(|network| {
            let foreign = self.foreign.values().find_map(|of| of.get(network))?;
            Some((network.clone(), foreign.clone()))
        });
        known.collect()
    }

    /// Takes in who is on the networks of a driver on other hosts: the networks that netd is to be told of anew, and those
    /// of which it is to keep nobody.
    fn replace(
        &mut self,
        driver: &str,
        networks: HashMap<String, Vec<Foreign>>,
    ) -> (Vec<(String, Vec<Foreign>)>, Vec<String>) {
        let before = self.foreign.insert(driver.to_owned(), networks);
        let before = before.unwrap_or_default();
        let now = &self.foreign[driver];
        let gone = before.keys().filter(|network| !now.contains_key(*network));
        let gone = gone.filter(|network| self.told.contains(*network));
        let gone = gone.cloned().collect();
        self.told.retain(|network| {
            let of_driver = before.get(network);
            of_driver.is_none() || of_driver == now.get(network)
        });
        let sandboxes = self.known.values();
        let untold = sandboxes.flat_map(|(names, _)| self.untold(names));
        let changed: BTreeMap<_, _> = untold.collect();
        (changed.into_iter().collect(), gone)
    }
}

/// Tells netd who is called what, and starts another when one dies. Without a program, nobody is called anything.
#[derive(Debug)]
pub(crate) struct NameService {
    socket: PathBuf,
    program: Option<PathBuf>,
    /// Leads to netd what it is to relay.
    firewall: Arc<Firewall>,
    state: Mutex<State>,
    /// For the thread that waits for netd's end.
    this: Weak<Self>,
    /// Tells that thread, by the end of this pipe, that it is no longer needed.
    alive: (OwnedFd, OwnedFd),
}

fn failed(error: ClientError) -> NetworkError {
    match error {
        ClientError::TooLong => NetworkError::invalid(
            "a container's names and egress rules must not take more than 16 MiB",
        ),
        error => NetworkError::internal(format!("name service: {error}")),
    }
}

impl NameService {
    pub(crate) fn new(
        socket: PathBuf,
        program: Option<PathBuf>,
        firewall: Arc<Firewall>,
    ) -> io::Result<Arc<Self>> {
        let alive = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        Ok(Arc::new_cyclic(|this| Self {
            socket,
            program,
            firewall,
            state: Mutex::default(),
            this: this.clone(),
            alive,
        }))
    }

    /// Watches the netd that is connected, from a thread of its own.
    fn watch(&self, client: &Client) {
        let (this, pid) = (self.this.clone(), client.pid());
        let started = self.alive.0.try_clone().and_then(|alive| {
            std::thread::Builder::new()
                .name("netd-watch".into())
                .stack_size(128 * 1024)
                .spawn(move || {
                    if ended(pid, &alive)
                        && let Some(service) = this.upgrade()
                    {
                        service.replace(pid);
                    }
                })
        });
        if let Err(error) = started {
            tracing::warn!(%error, "the name service is not watched");
        }
    }

    /// Starts another netd in the place of one that died, unless that has been done.
    fn replace(&self, pid: u32) {
        let mut state = self.state.lock();
        if state
            .client
            .as_ref()
            .is_some_and(|client| client.pid() != pid)
        {
            return;
        }
        state.client = None;
        if state.known.is_empty() && state.relays.is_empty() {
            return;
        }
        tracing::warn!(pid, "the name service ended, starting another");
        if let Err(error) = self.ask(&mut state, Client::list) {
            tracing::error!(%error, "no names until the next change of a network");
        }
    }

    /// Whether there is a netd to be had.
    pub(crate) fn is_there(&self) -> bool {
        self.program.is_some()
    }

    /// Has netd open the ways of names again that were closed.
    pub(crate) fn open_again(&self) {
        let mut state = self.state.lock();
        let confined = state.known.values().map(|(names, _)| names);
        let confined: Vec<_> = confined.filter(|n| n.egress.is_some()).cloned().collect();
        for names in confined {
            let told = self.ask(&mut state, |client| client.put(names.clone(), None));
            if let Err(error) = told {
                tracing::warn!(container = names.id, %error, "names on its egress list are not reached until asked for again");
            }
        }
    }

    /// Asks netd, connecting first if there is no connection, and once more if it broke. A netd that was started anew
    /// is told all that is known.
    fn ask<T>(
        &self,
        state: &mut State,
        mut question: impl FnMut(&mut Client) -> std::result::Result<T, ClientError>,
    ) -> Result<T> {
        let Some(program) = &self.program else {
            return Err(NetworkError::internal("name service: no gantry-netd"));
        };
        let mut broken = None;
        for _ in 0..2 {
            if state.client.is_none() {
                let mut client = Client::connect_or_start(&self.socket, program).map_err(failed)?;
                if client.version() < PROTOCOL {
                    client.stop().map_err(failed)?;
                    client = Client::connect_or_start(&self.socket, program).map_err(failed)?;
                }
                self.watch(&client);
                state.client = Some(client);
                let told = self.tell(state);
                if told.is_err() {
                    // It knows a part: the next question begins anew.
                    state.client = None;
                }
                told?;
            }
            let Some(client) = &mut state.client else {
                break;
            };
            match question(client) {
                Err(error @ (ClientError::Refused(_) | ClientError::TooLong)) => {
                    return Err(failed(error));
                }
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    // Until it has ended the ports that it listens on are taken.
                    let pid = client.pid();
                    state.client = None;
                    wait_for_end(pid);
                    broken = Some(error);
                }
            }
        }
        Err(broken.map_or_else(
            || NetworkError::internal("name service: no connection"),
            failed,
        ))
    }

    /// Sets what a sandbox is called and may know.
    pub(crate) fn put(&self, names: SandboxNames, netns: &Arc<OwnedFd>) -> Result<()> {
        let mut state = self.state.lock();
        let id = names.id.clone();
        let is_known = state.known.contains_key(&id);
        let made = if is_known {
            None
        } else {
            Some(self.make(netns)?)
        };
        let untold = state.untold(&names);
        self.ask(&mut state, |client| {
            for (network, foreign) in &untold {
                client.set_foreign(network, foreign)?;
            }
            client.put(names.clone(), made.as_ref())
        })?;
        state
            .told
            .extend(untold.into_iter().map(|(network, _)| network));
        state.known.insert(id, (names, Arc::clone(netns)));
        Ok(())
    }

    /// Whether netd answers a sandbox.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.state.lock().known.contains_key(id)
    }

    fn make(&self, netns: &OwnedFd) -> Result<[OwnedFd; 2]> {
        sockets(netns).map_err(|e| NetworkError::io("making the sandbox's name sockets", &e))
    }

    /// Forgets a sandbox.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        let mut state = self.state.lock();
        match state.known.remove(id) {
            Some(_) => self.ask(&mut state, |client| client.remove(id)),
            None => Ok(()),
        }
    }

    /// Sets who is on the networks of a driver on other hosts, every network with all that is known of it.
    pub(crate) fn set_foreign(
        &self,
        driver: &str,
        networks: HashMap<String, Vec<Foreign>>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        let (changed, gone) = state.replace(driver, networks);
        if changed.is_empty() && gone.is_empty() {
            return Ok(());
        }
        self.ask(&mut state, |client| {
            for (network, foreign) in &changed {
                client.set_foreign(network, foreign)?;
            }
            gone.iter()
                .try_for_each(|network| client.set_foreign(network, &[]))
        })?;
        state
            .told
            .extend(changed.into_iter().map(|(network, _)| network));
        Ok(())
    }

    /// Sets what is relayed to a sandbox. `patient`: a port that another program has is no error; netd listens when it is free.
    pub(crate) fn relay(&self, id: &str, relays: Vec<Relay>, patient: bool) -> Result<()> {
        let mut state = self.state.lock();
        if relays.is_empty() && !state.relays.contains_key(id) {
            return Ok(());
        }
        let led = relays.iter().any(|relay| !relay.listen);
        let listeners = self.ask(&mut state, |client| {
            // What it cannot listen on is an answer: in words for clients.
            match client.relay(id, &relays, patient) {
                Err(ClientError::Refused(reason)) => return Ok(Err(reason)),
                told => told?,
            }
            led.then(|| client.listen()).transpose().map(Ok)
        })?;
        let listeners = listeners.map_err(NetworkError::internal)?;
        state.relays.insert(id.to_owned(), relays);
        self.lead_to(listeners)
    }

    fn lead_to(&self, listeners: Option<Listeners>) -> Result<()> {
        let led = listeners.map_or(Ok(()), |listeners| self.firewall.lead_to(listeners));
        led.map_err(|e| NetworkError::io("leading ports to gantry-netd", &e))
    }

    /// Ends what is relayed to a sandbox, with all connections.
    pub(crate) fn forget_relays(&self, id: &str) -> Result<()> {
        let mut state = self.state.lock();
        match state.relays.remove(id) {
            Some(_) => self.ask(&mut state, |client| client.unrelay(id)),
            None => Ok(()),
        }
    }

    /// Tells a netd that has just been connected to all that there is to tell.
    fn tell(&self, state: &mut State) -> Result<()> {
        tell_all(state)?;
        self.tell_relays(state)?;
        let client = state.client.as_mut();
        client.map_or(Ok(()), |client| {
            client.hold(self.firewall.shortcut()).map_err(failed)
        })
    }

    /// Brings what netd relays to what is known here.
    fn tell_relays(&self, state: &mut State) -> Result<()> {
        let State {
            client: Some(client),
            relays,
            ..
        } = state
        else {
            return Ok(());
        };
        let there = client.relayed().map_err(failed)?;
        for id in there.iter().filter(|id| !relays.contains_key(*id)) {
            client.unrelay(id).map_err(failed)?;
        }
        for (id, relays) in &*relays {
            client.relay(id, relays, true).map_err(failed)?;
        }
        let led = relays.values().flatten().any(|relay| !relay.listen);
        let listeners = led.then(|| client.listen()).transpose().map_err(failed)?;
        self.lead_to(listeners)
    }

    /// Takes over from an earlier daemon: netd is to know exactly these sandboxes and relays. A netd that still runs keeps
    /// its sockets; there is none to be started for nobody.
    pub(crate) fn restore(
        &self,
        all: Vec<(SandboxNames, Arc<OwnedFd>)>,
        relays: HashMap<String, Vec<Relay>>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        state.relays = relays;
        state.known = all
            .into_iter()
            .map(|(names, netns)| (names.id.clone(), (names, netns)))
            .collect();
        let running = Client::connect(&self.socket).ok();
        // An older one is replaced by the next question.
        state.client = running.filter(|client| client.version() >= PROTOCOL);
        match &state.client {
            Some(client) => {
                self.watch(client);
                let told = self.tell(&mut state);
                if told.is_err() {
                    state.client = None;
                }
                told
            }
            None if state.known.is_empty() && state.relays.is_empty() => Ok(()),
            None => self.ask(&mut state, Client::list).map(drop),
        }
    }

    /// Ends the connection, and netd with it if told so.
    pub(crate) fn close(&self, stop: bool) {
        let mut state = self.state.lock();
        if stop {
            // Nobody is to start another in its place.
            state.known.clear();
            state.relays.clear();
        }
        let client = state
            .client
            .take()
            .or_else(|| Client::connect(&self.socket).ok());
        if let Some(client) = client.filter(|_| stop)
            && let Err(error) = client.stop()
        {
            tracing::warn!(%error, "stopping the name service");
        }
    }
}

/// Gives a process that has broken a connection off a little time to end.
fn wait_for_end(pid: u32) {
    use rustix::event::{PollFd, PollFlags, Timespec};
    const PATIENCE: Timespec = Timespec {
        tv_sec: 2,
        tv_nsec: 0,
    };
    let pid = i32::try_from(pid).ok();
    let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else {
        return;
    };
    if let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        let mut waited = [PollFd::new(&process, PollFlags::IN)];
        // One that does not end is not waited for longer.
        let _ = rustix::event::poll(&mut waited, Some(&PATIENCE));
    }
}

/// Waits for the end of a process; false when nobody is interested any more.
fn ended(pid: u32, alive: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags};
    let Some(pid) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    else {
        return false;
    };
    let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return true;
    };
    let mut waited = [
        PollFd::new(&process, PollFlags::IN),
        PollFd::new(alive, PollFlags::IN),
    ];
    let polled = rustix::io::retry_on_intr(|| rustix::event::poll(&mut waited, None));
    polled.is_ok() && waited[1].revents().is_empty()
}

/// Brings what netd knows to what is known here.
fn tell_all(state: &mut State) -> Result<()> {
    state.told.clear();
    let untold: HashMap<_, _> = state
        .known
        .values()
        .flat_map(|(names, _)| state.untold(names))
        .collect();
    let State {
        client,
        known,
        told,
        ..
    } = state;
    let Some(client) = client else {
        return Ok(());
    };
    let there = client.list().map_err(failed)?;
    for id in there.iter().filter(|id| !known.contains_key(*id)) {
        client.remove(id).map_err(failed)?;
    }
    for (id, (names, netns)) in known {
        let made = if there.contains(id) {
            None
        } else {
            match sockets(netns) {
                Ok(made) => Some(made),
                Err(error) => {
                    tracing::warn!(container = id, %error, "no name sockets for a sandbox");
                    continue;
                }
            }
        };
        match client.put(names.clone(), made.as_ref()) {
            // One that cannot be served is no reason not to serve the others.
            Err(error @ (ClientError::Refused(_) | ClientError::TooLong)) => {
                tracing::warn!(container = id, %error, "no names for a sandbox");
            }
            told => told.map_err(failed)?,
        }
    }
    for (network, foreign) in untold {
        client.set_foreign(&network, &foreign).map_err(failed)?;
        told.insert(network);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netd_is_told_of_networks_that_are_no_more() {
        let foreign = |name: &str| Foreign {
            names: vec![name.to_owned()],
            addresses: Vec::new(),
        };
        let networks = |names: &[&str]| {
            let all = names.iter().map(|n| ((*n).to_owned(), vec![foreign(n)]));
            all.collect::<HashMap<_, _>>()
        };
        let mut state = State::default();
        state.replace("overlay", networks(&["a", "b", "c"]));
        state.replace("other", networks(&["d"]));
        state.told = ["a", "b", "d"].map(str::to_owned).into();
        let (_, gone) = state.replace("overlay", networks(&["a"]));
        assert_eq!(gone, ["b"], "nothing was told of c");
        let mut told: Vec<_> = state.told.iter().collect();
        told.sort();
        assert_eq!(told, ["a", "d"], "should b come back, it is told anew");
        let (_, gone) = state.replace("overlay", networks(&["a"]));
        assert!(gone.is_empty());
    }
}
