//! Containers as clients see them.

mod inspect;
mod list;
mod top;
mod words;
