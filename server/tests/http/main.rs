//! The HTTP faces of the server, over a core without media.

// Helpers of tests fail by panic, as tests do.
#![allow(clippy::unwrap_used)]

mod admin;
mod common;
mod deadlines;
mod listener;
mod pages;
