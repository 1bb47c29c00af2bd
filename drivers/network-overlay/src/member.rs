//! What runs for a host that is a member of a cluster: the tasks that keep it one, and the thread that tells the kernel.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use gantry_plugin_sdk::{Call, DriverError, DriverResult, Health};
use tokio::runtime::Runtime;

use crate::beat;
use crate::cluster::{self, Shared, Trouble};
use crate::follow;
use crate::plane::Plane;

/// How long a call waits for the store when it can do without.
const SHORT: Duration = Duration::from_secs(3);

/// How long to wait before the kernel is told again what it refused.
const RETRY: Duration = Duration::from_secs(2);

/// What runs for a host that is a member of a cluster.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) cluster: Shared,
    /// Taken when the driver ends.
    runtime: Option<Runtime>,
    teller: Option<JoinHandle<()>>,
}

impl Member {
    /// Starts what runs for it.
    pub(crate) fn start(cluster: Shared, plane: Arc<Plane>) -> DriverResult<Self> {
        let runtime = cluster::runtime()?;
        runtime.spawn(follow::follow(Arc::clone(&cluster)));
        runtime.spawn(beat::beat(Arc::clone(&cluster), Arc::clone(&plane)));
        let mirrored = Arc::clone(&cluster);
        let tell = move || {
            while let Some(touched) = mirrored.mirror.next_touched() {
                let failed = mirrored.mirror.look(|tables| plane.tell(tables, &touched));
                if let Some(failed) = failed.filter(|failed| !failed.is_empty()) {
                    std::thread::sleep(RETRY);
                    mirrored.mirror.touch(failed);
                }
            }
        };
        let teller = std::thread::Builder::new()
            .name("overlay-tell".into())
            .stack_size(256 << 10)
            .spawn(tell)
            .map_err(|e| DriverError::io("starting a thread", &e))?;
        Ok(Self {
            cluster,
            runtime: Some(runtime),
            teller: Some(teller),
        })
    }

    /// Asks the store, within the call's time; for a moment only, when it has been silent for long.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        call: &Call<'_>,
        work: impl Future<Output = DriverResult<T>> + Send + 'static,
    ) -> DriverResult<T> {
        let silence = self.cluster.mirror.age().unwrap_or_default();
        let is_away = silence > 3 * self.cluster.options.lease();
        let call = match is_away {
            true => call.with_timeout(call.timeout.unwrap_or(SHORT).min(SHORT)),
            false => *call,
        };
        match &self.runtime {
            Some(runtime) => cluster::run(runtime, &call, work),
            None => Err(DriverError::internal("the driver is being shut down")),
        }
    }

    /// Gives an endpoint's addresses back: now if the store answers, else as soon as it does.
    pub(crate) fn give_back(&self, call: &Call<'_>, endpoint: &str) -> DriverResult<()> {
        self.cluster.give_back(endpoint)?;
        let held = self.cluster.held.lock().get(endpoint);
        let Some(held) = held.filter(|_| self.cluster.is_live()) else {
            return Ok(());
        };
        let (cluster, id) = (Arc::clone(&self.cluster), endpoint.to_owned());
        let call = call.with_timeout(call.timeout.unwrap_or(SHORT).min(SHORT));
        let removed = self.run(
            &call,
            async move { beat::remove(&cluster, &id, &held).await },
        );
        if let Err(error) = removed {
            let log = &self.cluster.log;
            log.warn(format!("endpoint {endpoint} is given back later: {error}"));
        }
        Ok(())
    }
}

impl Member {
    /// What there is to tell about this host. While the store is away, nothing new can be made.
    pub(crate) fn health(&self) -> Health {
        let cluster = &self.cluster;
        let mut health = Health {
            healthy: true,
            message: String::new(),
            status: Vec::new(),
        };
        let mut tell = |what: &str, value: String| health.status.push((what.to_owned(), value));
        tell("Host", cluster.host.clone());
        match cluster.address() {
            Ok(address) => tell("Address", address.to_string()),
            Err(error) => tell("Address", error.message),
        }
        tell("Etcd", cluster.options.etcd.join(", "));
        let trouble = cluster.trouble.lock().clone();
        let member = if trouble.is_none() { "yes" } else { "away" };
        tell("Member", member.to_owned());
        let counts = cluster.mirror.look(|tables| {
            let away = tables
                .hosts
                .keys()
                .filter(|host| !tables.live.contains(*host));
            (tables.networks.len(), tables.hosts.len(), away.count())
        });
        if let Some((networks, hosts, away)) = counts {
            tell("Networks", networks.to_string());
            tell("Hosts", format!("{hosts} ({away} away)"));
        }
        if let Some(Trouble { since, why }) = trouble {
            health.healthy = false;
            health.message = format!("{why} (since {since:.0})");
        }
        health
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.cluster.mirror.close();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_millis(200));
        }
        if let Some(teller) = self.teller.take() {
            // It has told of its own failures.
            let _ = teller.join();
        }
    }
}
