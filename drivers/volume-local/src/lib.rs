//! Volumes as directories on the host.
