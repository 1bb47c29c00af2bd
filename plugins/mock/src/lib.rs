//! Scriptable drivers with fail points, for tests.
