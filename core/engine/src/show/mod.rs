//! Containers as clients see them.

mod filter;
mod inspect;
mod list;
mod top;
mod words;
