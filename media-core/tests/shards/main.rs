//! A real core on loopback sockets, seen by publishers and viewers.

// Tests say what went wrong by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod ecn;
mod feedback;
mod floods;
mod forwarding;
mod hostile;
mod layers;
mod lifecycle;
mod proof;
mod supervision;
mod tcp;
