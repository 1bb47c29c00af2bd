//! The frozen binary interface between host and plugin.
