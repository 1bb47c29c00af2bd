//! Content-addressed blob store: ingest, verification, leases, garbage collection.
