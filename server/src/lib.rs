//! Sluice, the server around the media core: configuration, HTTP listeners, admin API, metrics and web pages.

#![forbid(unsafe_code)]

pub mod admin;
pub mod admin_access;
mod certificate;
pub mod config;
pub mod connections;
mod descriptors;
#[cfg(feature = "fault-injection")]
mod faults;
mod first_bytes;
pub mod follow;
pub mod hash_token;
mod http_connection;
pub mod listener;
mod media_connections;
pub mod metrics;
pub mod pages;
mod paging;
pub mod reload;
pub mod run;
pub mod service_manager;
pub mod socket;
pub mod supervise;
pub mod telemetry;
pub mod tls;
