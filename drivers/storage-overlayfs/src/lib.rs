//! Snapshots on the kernel's overlay file system.
