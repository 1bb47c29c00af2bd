//! HTTP handlers of the Docker Engine API: extract, one engine call, encode.
