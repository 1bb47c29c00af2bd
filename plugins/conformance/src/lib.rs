//! Conformance suite per driver kind, and the driver-verify binary.
