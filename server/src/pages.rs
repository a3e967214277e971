//! The web pages, built into the binary, and the list of streams that the first page shows.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::Serialize;
use signaling::{ClientAddress, Problem, Signaling, SignalingConfig, Site, Slug, method_label};

use crate::metrics::Metrics;
use crate::paging::{self, Part};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of the pages.
#[derive(Clone, Copy, Debug)]
struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const INDEX: Asset = Asset { name: "index.html", content_type: HTML, text: include_str!("../pages/index.html") };
const PUBLISH: Asset = Asset { name: "publish.html", content_type: HTML, text: include_str!("../pages/publish.html") };
const WATCH: Asset = Asset { name: "watch.html", content_type: HTML, text: include_str!("../pages/watch.html") };

const ICON: Asset = Asset { name: "icon.svg", content_type: SVG, text: include_str!("../pages/icon.svg") };

const ASSETS: &[Asset] = &[
    Asset { name: "sluice.css", content_type: CSS, text: include_str!("../pages/sluice.css") },
    ICON,
    Asset { name: "whip.js", content_type: SCRIPT, text: include_str!("../pages/whip.js") },
    Asset { name: "page.js", content_type: SCRIPT, text: include_str!("../pages/page.js") },
    Asset { name: "layers.js", content_type: SCRIPT, text: include_str!("../pages/layers.js") },
    Asset { name: "network.js", content_type: SCRIPT, text: include_str!("../pages/network.js") },
    Asset { name: "pattern.js", content_type: SCRIPT, text: include_str!("../pages/pattern.js") },
    Asset { name: "ticker.js", content_type: SCRIPT, text: include_str!("../pages/ticker.js") },
    Asset { name: "index.js", content_type: SCRIPT, text: include_str!("../pages/index.js") },
    Asset { name: "publish.js", content_type: SCRIPT, text: include_str!("../pages/publish.js") },
    Asset { name: "watch.js", content_type: SCRIPT, text: include_str!("../pages/watch.js") },
];

/// What the pages need to know.
struct Pages {
    signaling: Arc<Signaling>,
    metrics: Arc<Metrics>,
}

/// The public listener's routes: WHIP and WHEP, the pages, and problem+json for everything else.
pub fn router(signaling: Arc<Signaling>, metrics: Arc<Metrics>) -> Router {
    let pages = Arc::new(Pages { signaling: Arc::clone(&signaling), metrics });
    let own = Router::new()
        .route("/", get(async |headers: HeaderMap| send(&INDEX, &headers)))
        .route("/publish/{stream}", get(async |headers: HeaderMap| send(&PUBLISH, &headers)))
        .route("/watch/{stream}", get(async |headers: HeaderMap| send(&WATCH, &headers)))
        .route("/assets/{name}", get(asset))
        .route("/favicon.ico", get(async |headers: HeaderMap| send(&ICON, &headers)))
        .route("/streams.json", get(streams))
        .route("/problems/{slug}", get(problem))
        .fallback(not_found)
        // The router adds `Allow`.
        .method_not_allowed_fallback(async || {
            Problem::new(Slug::MethodNotAllowed, "the Allow header lists the methods of this resource")
        })
        .layer(from_fn_with_state(Arc::clone(&pages), finish))
        .with_state(pages);
    guarded(signaling::router(Arc::clone(&signaling)).merge(own), signaling)
}

/// Routes of the public listener behind what comes before all of them.
pub fn guarded(router: Router, signaling: Arc<Signaling>) -> Router {
    router.layer(from_fn_with_state(signaling, guard))
}

/// Finds out whose a request is, and refuses one that is addressed to another server: a page may let a name of its own lead
/// here (DNS rebinding), and this server then has its origin.
async fn guard(State(signaling): State<Arc<Signaling>>, mut request: Request, next: Next) -> Response {
    let config = signaling.config();
    let peer = ClientAddress::of(request.extensions()).0;
    let client = ClientAddress::behind(peer, request.headers(), &config.trusted_proxies);
    request.extensions_mut().insert(client);
    let site = Site::of(&request);
    if config.host_names.as_ref().is_none_or(|names| site.is_addressed_to(names)) {
        return next.run(request).await;
    }
    let detail = "the Host header names a host that this server does not know: use an IP address or localhost, or name the \
                  address by public_url or http_hosts";
    let mut response = Problem::new(Slug::HostNotAllowed, detail).into_response();
    Problem::complete(&mut response, config.public_base_url.as_deref(), request.uri().path());
    response
}

/// Scripts, styles and connections from this server only; the origin of a configured public URL is this server too, and pages
/// follow redirects to other nodes, and the call to one that takes this one's viewers over.
fn content_security_policy(config: &SignalingConfig) -> HeaderValue {
    let origin = |url: &Option<String>| {
        let uri = url.as_deref()?.parse::<Uri>().ok()?;
        Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?))
    };
    let own = [&config.public_base_url, &config.reconnect_url].into_iter().filter_map(origin);
    let mut origins: Vec<String> = own.chain(config.redirects.origins()).collect();
    origins.sort();
    origins.dedup();
    let origins: String = origins.iter().map(|origin| format!(" {origin}")).collect();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; \
         connect-src 'self'{origins}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// Completes problems, adds the headers that every page carries, and counts the answer.
async fn finish(State(pages): State<Arc<Pages>>, request: Request, next: Next) -> Response {
    let (method, uri) = (method_label(request.method()), request.uri().clone());
    let site = Site::of(&request);
    let config = pages.signaling.config();
    let refusal = config.allowed_origins.refusal(&site);
    let mut response = match refusal {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    };
    Problem::complete(&mut response, None, uri.path());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, content_security_policy(&config));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Where a page leads is nobody's to know: its address has a stream's name.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        "permissions-policy",
        HeaderValue::from_static("camera=(self), microphone=(self), display-capture=(self), autoplay=(self)"),
    );
    // Scripts of other origins may read errors, else a mistyped endpoint shows as a network failure (ERR-05).
    if !response.status().is_success() {
        let headers = response.headers_mut();
        let _ = config.allowed_origins.admit(&site, headers) || config.allowed_origins.explain(&site, headers);
    }
    pages.metrics.page_response(method, response.status().as_u16());
    response
}

async fn not_found() -> Problem {
    let detail = "no such page; / lists the streams, WHIP is at /whip/{stream}, WHEP at /whep/{stream}";
    Problem::new(Slug::NotFound, detail)
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => send(asset, &headers),
        None => not_found().await.into_response(),
    }
}

/// What the `type` of a problem leads to.
async fn problem(Path(slug): Path<String>) -> Response {
    match slug.parse::<Slug>() {
        Ok(slug) => format!("{} ({}): {}\n", slug.as_str(), slug.status(), slug.title()).into_response(),
        Err(_) => not_found().await.into_response(),
    }
}

/// Sends a file, or 304 if the browser has it already.
fn send(asset: &Asset, request: &HeaderMap) -> Response {
    let mut hasher = DefaultHasher::new();
    asset.text.hash(&mut hasher);
    let etag = format!("\"{:016x}\"", hasher.finish());
    let known = request.get(header::IF_NONE_MATCH).is_some_and(|tags| tags.as_bytes() == etag.as_bytes());
    let headers = [
        (header::CONTENT_TYPE, asset.content_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, etag.as_str()),
    ];
    match known {
        true => (StatusCode::NOT_MODIFIED, headers, Body::empty()).into_response(),
        false => (headers, asset.text).into_response(),
    }
}

/// One stream in `/streams.json`.
#[derive(Serialize)]
struct ListedStream {
    stream: String,
    live: bool,
    viewers: usize,
}

/// The names of the streams. Where no token is configured everything is public, and so is this list; else it takes a token
/// that is good for all streams, since a name may be all that a viewer needs.
async fn streams(State(pages): State<Arc<Pages>>, parts: Parts, part: Result<Query<Part>, QueryRejection>) -> Response {
    if let Err(mut refused) = pages.signaling.authorize_listing(&parts).await {
        if refused.slug == Slug::Forbidden {
            let detail = "the list of streams takes a token that is good for all streams";
            refused = Problem::new(Slug::Unauthorized, detail).challenge(Some("invalid_token"));
        }
        return refused.into_response();
    }
    let part = match paging::read(part) {
        Ok(part) => part,
        Err(problem) => return problem.into_response(),
    };
    let page = pages.signaling.registry().streams_page(part.cursor.as_deref(), part.limit());
    let views = page.entries.into_iter();
    let list: Vec<_> =
        views.map(|view| ListedStream { stream: view.stream, live: view.live, viewers: view.viewers }).collect();
    ([(header::CACHE_CONTROL, "no-store")], part.next(page.next, &[]), Json(list)).into_response()
}
