//! The driver as the engine calls it, on directories that other tools wrote and read.

mod deletion;
mod layouts;
mod place;
mod refusals;
mod uploads;
