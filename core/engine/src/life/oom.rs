//! Memory that runs out while a container goes on: told at once, as dockerd does, not only with the end.

use std::sync::Arc;

use gantry_runtime::Process;

use crate::Engine;
use crate::container::Container;
use crate::stream::pollable;

impl Engine {
    /// Watches a container that has a memory limit of its own for as long as its process runs.
    pub(super) fn watch_memory(&self, container: &Arc<Container>, process: &Arc<Process>) {
        if container.record().host_config.memory <= 0 {
            return;
        }
        let (engine, container, process) = (self.clone(), container.clone(), process.clone());
        tokio::spawn(async move {
            let watch = process.watch_oom().await.map_err(|e| e.to_string());
            let watch = watch.and_then(|(watch, news)| {
                let news = pollable(news).map_err(|e| e.to_string())?;
                Ok((watch, news))
            });
            let (mut watch, news) = match watch {
                Ok(watch) => watch,
                Err(error) => {
                    tracing::debug!(container = %container.id, %error, "cannot watch its memory");
                    return;
                }
            };
            loop {
                tokio::select! {
                    _ = process.wait() => return,
                    ready = news.readable() => {
                        let Ok(mut ready) = ready else {
                            return;
                        };
                        // Before it is read: what comes meanwhile makes it ready again.
                        ready.clear_ready();
                        if watch.happened(news.get_ref()) && !engine.note_oom(&container, &process) {
                            return;
                        }
                    }
                }
            }
        });
    }

    /// Notes and tells it, unless the run is over, whose end tells it then.
    fn note_oom(&self, container: &Arc<Container>, process: &Arc<Process>) -> bool {
        {
            let mut live = container.live.lock();
            let current = live.process.as_ref();
            if !current.is_some_and(|current| Arc::ptr_eq(current, process)) {
                return false;
            }
            live.oom_told = true;
        }
        let record = container.update(|record| record.state.oom_killed = true);
        self.tell(&record, "oom");
        true
    }
}
