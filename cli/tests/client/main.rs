//! The client as a program, against a scripted daemon.

mod fake;
mod requests;
mod run;
mod secure;
mod terminal;
