//! The configuration. Precedence: flag, environment, file, default.
//!
//! [`settings`] lists what can be set, [`load`] reads the layers, [`resolve`] turns the settings into what the parts of the
//! server want, and [`render`] writes the reference file, the table for people and the effective configuration.

mod access;
pub mod addresses;
pub mod discovery;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod http_values;
pub mod ice_servers;
pub mod load;
pub mod public_host;
pub mod render;
pub mod resolve;
pub mod settings;
mod tls;
pub mod values;
pub mod whep_values;

pub use settings::{SETTINGS, Settings};
