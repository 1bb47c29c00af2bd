//! The zygote and the per-container monitors it forks.
