//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep-04) for Sluice: HTTP routers, SDP offer/answer, trickle fragments,
//! tokens, and the registry of streams and sessions with their ledgers.
//!
//! [`Signaling`] joins the parts; [`router`] makes them an [`axum::Router`]; [`Registry::run`] follows what the core reports.

#![forbid(unsafe_code)]

mod auth;
mod config;
mod core;
mod establish;
mod observer;
mod problem;
mod random;
mod registry;
mod routes;
mod sdp;
mod sdpfrag;
mod service;
mod trickle;
mod view;
mod whep;
mod whip;

pub use auth::{Access, Identity, TokenError, Tokens};
pub use config::{AllowedOrigins, SignalingConfig, UnknownStream};
pub use core::Core;
pub use observer::{NoObserver, Observer, Resource};
pub use problem::{Problem, Slug};
pub use registry::{Counts, Registry};
pub use routes::router;
pub use service::Signaling;
pub use view::{SessionState, SessionView, StageView, StreamView, TrackView};
