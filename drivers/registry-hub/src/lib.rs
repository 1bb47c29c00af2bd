//! Docker Hub and any OCI distribution registry.
