//! What a plugin author depends on; nothing else is needed.
