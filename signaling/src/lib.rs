//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep-04) for Sluice: HTTP routers, SDP offer/answer, trickle fragments,
//! tokens, and the registry of streams and sessions with their ledgers.
//!
//! [`Signaling`] joins the parts; [`router`] makes them an [`axum::Router`]; [`Registry::run`] follows what the media core reports.

#![forbid(unsafe_code)]

mod admission;
mod auth;
mod client_address;
mod clock;
mod config;
mod cors;
mod counter_offer;
mod endpoint;
mod establish;
mod events;
mod extensions;
mod extract;
mod forwarded;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod ice_generations;
mod ice_servers;
mod layer_selection;
mod limits;
mod media_plane;
mod names;
mod observer;
mod problem;
mod random;
mod rates;
mod redirect;
mod registry;
mod request;
mod router;
mod sdp;
mod sdpfrag;
mod service;
mod session_resource;
mod site;
mod state;
mod takeover;
mod trickle;
mod view;
mod whep;
mod whip;

pub use auth::{
    AccessToken, Action, BadPattern, Identity, JwksUrl, JwtConfig, KeyError, KeySet, StreamPattern, TokenDigest,
    TokenError, Tokens, WebhookAway, WebhookConfig, WebhookSecret, hashed_line,
};
pub use client_address::ClientAddress;
pub use config::{AllowedOrigins, PublishTakeover, SignalingConfig, UnknownStream};
pub use ice_servers::{BadIceServer, IceServerUrl, IceServers, TurnCredentials, TurnSecret, TurnText};
pub use limits::{ENDED_RETENTION, Limit, Limits};
pub use media_plane::MediaPlane;
pub use observer::{AccessOutcome, AccessSource, Observer, Resource};
pub use problem::{Problem, Slug};
pub use redirect::{BadRedirect, RedirectRule, RedirectStatus, Redirects};
pub use registry::{BadCursor, Counts, Page, Registry, SessionCursor, SessionFilter};
pub use router::{method_label, router};
pub use service::Signaling;
pub use site::Site;
pub use view::{LimitUse, SessionState, SessionView, StageView, StreamView, TrackView};
