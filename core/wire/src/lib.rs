//! Docker Engine API types and their per-version shaping.
