//! Use cases of the engine, one serial queue a container, and recovery.
