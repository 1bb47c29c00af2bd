//! The network helper that outlives the daemon: name service and relays.
