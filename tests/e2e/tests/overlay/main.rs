//! Networks across hosts: several engines, each in a network namespace that stands for its host, with a real etcd.

mod lab;
mod reload;
mod three;
mod two;
