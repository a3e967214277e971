//! What a request carries besides its path: media type, body and If-Match.

mod body;
mod if_match;
mod media_type;

pub(crate) use self::body::read as read_body;
pub(crate) use self::if_match::IfMatch;
pub(crate) use self::media_type::{JSON, MISSPELT_JSON, SDP, SDPFRAG};
