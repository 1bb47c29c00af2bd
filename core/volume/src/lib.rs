//! Volume index, reference counts and copy-up.
