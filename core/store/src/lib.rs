//! Crash-safe state of the engine: typed tables with group commit.
