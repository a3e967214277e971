//! The core extensions of WHEP, as the answer to a viewer's offer names them (WHEP §4.10).

use http::HeaderValue;

use crate::events::EventKind;
use crate::problem::Problem;
use crate::state::{RouterState, header_value};

/// Their common beginning (RFC 9725 §6.4.1 has that of WHIP's).
const URN: &str = "urn:ietf:params:whep:ext:core";

/// What a session's `Link` headers say of them; `path` is the session's.
pub(crate) fn links(state: &RouterState, path: &str) -> Result<[HeaderValue; 2], Problem> {
    let link = |last: &str, name: &str, more: &str| {
        let target = state.url(&format!("{path}/{last}"))?;
        let target = target.to_str().unwrap_or_default();
        header_value(&format!("<{target}>; rel=\"{URN}:{name}\"{more}"))
    };
    let events = format!("; events=\"{}\"", EventKind::names());
    Ok([link("sse", "server-sent-events", &events)?, link("layer", "layer", "")?])
}
