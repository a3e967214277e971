//! `/whep/{stream}/{secret}/layer`: a viewer says which layer of the video it wants.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::ALLOW;
use media_core::layers::LayerSelection;
use media_core::media::TrackId;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::extract::SessionUrl;
use crate::limits::MAX_JSON;
use crate::problem::{Problem, Slug};
use crate::registry::KnownLayers;
use crate::request::{JSON, MISSPELT_JSON, read_body};
use crate::state::RouterState;

const METHODS: &str = "OPTIONS, POST";

/// What a viewer asks for; what it leaves out is the server's to choose.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    /// Index of the m-line; that of the video by default.
    media_id: Option<String>,
    // As drafts before that of the working group have it, and their players send it.
    #[serde(alias = "encodingId")]
    rid: Option<String>,
    spatial_layer_id: Option<u32>,
    temporal_layer_id: Option<u32>,
    max_spatial_layer_id: Option<u32>,
    max_temporal_layer_id: Option<u32>,
    max_width: Option<u32>,
    max_height: Option<u32>,
}

/// OPTIONS.
pub(crate) async fn options(State(state): State<RouterState>, _: SessionUrl) -> Result<Response, Problem> {
    state.demand_extensions()?;
    Ok(([(ALLOW, METHODS)], [JSON.accept()]).into_response())
}

/// Every method but POST.
pub(crate) async fn method_not_allowed(State(state): State<RouterState>, _: SessionUrl) -> Problem {
    state.demand_extensions().err().unwrap_or_else(|| Problem::method_not_allowed(METHODS))
}

/// POST. What was wanted before counts no more.
pub(crate) async fn post(
    State(state): State<RouterState>,
    session: SessionUrl,
    request: Request,
) -> Result<StatusCode, Problem> {
    state.demand_extensions()?;
    let (parts, body) = request.into_parts();
    let id = session.live()?;
    session.admit(&state, &parts).await?;
    if !MISSPELT_JSON.is_of(&parts.headers) {
        JSON.demand(&parts.headers)?;
    }
    let body = read_body(&parts.headers, body, MAX_JSON).await?;
    let (shard, known) = state.signaling.registry.known_layers(id).ok_or_else(Problem::session_over)?;
    if let Some(selection) = selection(&body, &known)? {
        state.signaling.media_plane.select_layer(shard, id, TrackId::VIDEO, selection);
    }
    Ok(StatusCode::OK)
}

/// What the media core is to be told by a body; nothing where that is about a section without layers, and asks for none.
pub(crate) fn selection(body: &[u8], known: &KnownLayers) -> Result<Option<LayerSelection>, Problem> {
    Wanted::read(body)?.selection(known)
}

impl Wanted {
    fn read(body: &[u8]) -> Result<Wanted, Problem> {
        if body.is_empty() {
            return Err(Problem::new(Slug::EmptyBody, "a JSON object is needed"));
        }
        let wrong = |error: serde_json::Error| Problem::new(Slug::JsonSyntax, error.to_string());
        // An object and nothing else: derived code takes an array for one, too.
        let members = serde_json::from_slice::<Map<String, Value>>(body).map_err(wrong)?;
        Wanted::deserialize(Value::Object(members)).map_err(wrong)
    }

    fn selection(self, known: &KnownLayers) -> Result<Option<LayerSelection>, Problem> {
        let unknown = |detail: String| Err(Problem::new(Slug::UnknownLayer, detail));
        let line = match &self.media_id {
            None => known.video_line,
            Some(index) => match index.parse::<usize>().ok().filter(|index| *index < known.lines) {
                Some(index) => Some(index),
                None => return unknown(format!("mediaId {index:?} is no index of an m-line of the session")),
            },
        };
        if line.is_none() || line != known.video_line {
            return match (Wanted { media_id: None, ..self }) == Wanted::default() {
                true => Ok(None),
                false => unknown("layers are a matter of video, and this section has none".to_owned()),
            };
        }
        if [self.max_width, self.max_height].contains(&Some(0)) {
            return unknown("no layer has a width or a height of 0".to_owned());
        }
        if let Some(rid) = self.rid.as_ref().filter(|rid| !known.has_rid(rid)) {
            return unknown(format!("no layer has the rid {rid:?}; the event `layers` lists them"));
        }
        let (spatial, temporal) = (self.spatial_layer_id, self.temporal_layer_id);
        if !known.has_layer(self.rid.as_deref(), spatial, temporal) {
            return unknown("there is no such spatial or temporal layer; the event `layers` lists them".to_owned());
        }
        // Greater numbers limit nothing.
        let layer = |limit: Option<u32>| limit.map(|limit| u8::try_from(limit).unwrap_or(u8::MAX));
        let pixels = |limit: Option<u32>| limit.map(|limit| u16::try_from(limit).unwrap_or(u16::MAX));
        Ok(Some(LayerSelection {
            rid: self.rid,
            spatial: layer(spatial),
            temporal: layer(temporal),
            max_spatial: layer(self.max_spatial_layer_id),
            max_temporal: layer(self.max_temporal_layer_id),
            max_width: pixels(self.max_width),
            max_height: pixels(self.max_height),
        }))
    }
}
