//! Images: references, manifests, pull, unpack, load, import.
