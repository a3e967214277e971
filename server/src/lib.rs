//! Sluice, the server around the media core: configuration, HTTP listeners, admin API, metrics and web pages.

#![forbid(unsafe_code)]

pub mod admin;
pub mod admin_access;
pub mod config;
pub mod connections;
mod descriptors;
mod follow;
mod http_connection;
pub mod listener;
pub mod metrics;
pub mod pages;
mod paging;
pub mod run;
pub mod socket;
pub mod telemetry;
