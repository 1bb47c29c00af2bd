//! From a container's configuration to a running process, through the monitor.
