//! Networks on a Linux bridge with veth pairs.
