//! Where a request is addressed to, and which web site sent it.
//!
//! A browser sends requests for every page that its user opens. A page of another site may not use a server that trusts
//! whoever reaches it: neither openly, under its own `Origin`, nor under a name of its own that it lets lead to the server's
//! address (DNS rebinding), where only the `Host` tells.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Uri};

/// The target and the origin of a request.
#[derive(Clone, Debug)]
pub struct Site {
    target: Target,
    origin: Option<HeaderValue>,
    /// `Sec-Fetch-Site` (Fetch Metadata).
    fetch_site: Option<HeaderValue>,
}

/// What a request names as its target.
#[derive(Clone, Debug)]
enum Target {
    /// Nothing, as in HTTP/1.0. Browsers always name one.
    Unnamed,
    /// A host, perhaps with a port.
    Named(Authority),
    /// More than one, or none that parses.
    Unclear,
}

impl Site {
    /// Reads it from a request.
    pub fn of<B>(request: &Request<B>) -> Site {
        Site::read(request.uri(), request.headers())
    }

    /// Reads it from the parts of one.
    pub(crate) fn read(uri: &Uri, headers: &HeaderMap) -> Site {
        let mut hosts = headers.get_all(HOST).iter();
        let target = match (uri.authority(), hosts.next(), hosts.next()) {
            // Of HTTP/2, and of the absolute form, which wins over the header (RFC 9112 §3.2.2).
            (Some(authority), _, _) => Target::Named(authority.clone()),
            (None, None, _) => Target::Unnamed,
            (None, Some(host), None) => Authority::try_from(host.as_bytes()).map_or(Target::Unclear, Target::Named),
            (None, Some(_), Some(_)) => Target::Unclear,
        };
        let fetch_site = headers.get("sec-fetch-site").cloned();
        Site { target, origin: headers.get(ORIGIN).cloned(), fetch_site }
    }

    /// The host that the request names, without port; for messages.
    pub fn host(&self) -> &str {
        match &self.target {
            Target::Named(authority) => authority.host(),
            Target::Unnamed | Target::Unclear => "",
        }
    }

    /// The host that the request names, with its port if it has one; `None` if it names none, or more than one.
    pub fn authority(&self) -> Option<&Authority> {
        match &self.target {
            Target::Named(authority) => Some(authority),
            Target::Unnamed | Target::Unclear => None,
        }
    }

    /// Whether the request names this server: by an IP address or as localhost, which no foreign name can be, or by one of
    /// these names, which are in lower case and have no port.
    pub fn is_addressed_to(&self, names: &[String]) -> bool {
        let host = match &self.target {
            Target::Unnamed => return true,
            Target::Unclear => return false,
            Target::Named(authority) => authority.host(),
        };
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        bare.parse::<IpAddr>().is_ok() || name == "localhost" || names.contains(&name)
    }

    /// The `Origin` header. Browsers send it with every request that another site's page can read the reply of, and with all
    /// that change something.
    pub fn origin(&self) -> Option<&HeaderValue> {
        self.origin.as_ref()
    }

    /// Whether the request comes from no page, or from one of the very host and port that it is addressed to. The scheme is
    /// left aside: where a proxy ends TLS, this server does not know it.
    pub fn is_same_origin(&self) -> bool {
        let Some(origin) = &self.origin else { return true };
        let (Ok(origin), Target::Named(target)) = (origin.to_str(), &self.target) else { return false };
        let target = target.as_str();
        // A default port may be left out of one of the two.
        let same = |authority: &str, port: &str| {
            let bare = |text: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
            bare(authority) == bare(target)
        };
        match origin.split_once("://") {
            Some(("http", authority)) => same(authority, ":80"),
            Some(("https", authority)) => same(authority, ":443"),
            _ => false,
        }
    }

    /// Whether a browser says that a page of elsewhere caused the request: by `Origin`, or by `Sec-Fetch-Site`, which also
    /// comes with images, scripts, links and forms. Other ports of one host are elsewhere.
    pub fn is_from_elsewhere(&self) -> bool {
        let fetched_from = self.fetch_site.as_ref().map(HeaderValue::as_bytes);
        !self.is_same_origin() || !matches!(fetched_from, None | Some(b"same-origin" | b"none"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(headers: &[(&str, &str)]) -> Site {
        let mut request = Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Site::of(&request.body(()).unwrap())
    }

    // M2, M3
    #[test]
    fn addresses_localhost_and_own_names_are_this_server_and_other_names_are_not() {
        let names = ["live.example".to_owned()];
        for host in [
            "127.0.0.1",
            "127.0.0.1:8081",
            "[::1]:8081",
            "[2001:db8::1]",
            "localhost:1",
            "LocalHost.",
            "Live.Example:8080",
        ] {
            assert!(site(&[("host", host)]).is_addressed_to(&names), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "live.example.evil", "", "a b"]
        {
            assert!(!site(&[("host", host)]).is_addressed_to(&names), "{host}");
        }
        assert!(site(&[]).is_addressed_to(&[]), "HTTP/1.0 names none");
        assert!(!site(&[("host", "127.0.0.1"), ("host", "evil.example")]).is_addressed_to(&[]));
        let of_http2 = Request::get("http://evil.example/").header("host", "127.0.0.1").body(()).unwrap();
        assert!(!Site::of(&of_http2).is_addressed_to(&[]));
    }

    // M3
    #[test]
    fn the_same_host_and_port_is_the_same_origin_whatever_ends_tls() {
        let same = |host, origin| site(&[("host", host), ("origin", origin)]).is_same_origin();
        for (host, origin) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("Live.example", "https://live.example"),
            ("live.example:443", "https://live.example"),
            ("live.example", "http://live.example"),
            ("[::1]:8080", "http://[::1]:8080"),
        ] {
            assert!(same(host, origin), "{host} {origin}");
        }
        for (host, origin) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8081"),
            ("127.0.0.1:8080", "http://localhost:8080"),
            ("live.example", "https://live.example:8443"),
            ("live.example", "null"),
            ("live.example", "ftp://live.example"),
            ("live.example", "https://evil.example"),
            ("", "http://"),
        ] {
            assert!(!same(host, origin), "{host} {origin}");
        }
        assert!(site(&[("host", "a")]).is_same_origin(), "no page");
        assert!(!site(&[("origin", "http://a")]).is_same_origin());
    }

    // M2
    #[test]
    fn what_another_page_causes_is_known_without_an_origin_too() {
        for value in ["cross-site", "same-site", "something-new"] {
            assert!(site(&[("host", "a"), ("sec-fetch-site", value)]).is_from_elsewhere(), "{value}");
        }
        for value in ["none", "same-origin"] {
            assert!(!site(&[("host", "a"), ("sec-fetch-site", value)]).is_from_elsewhere(), "{value}");
        }
        assert!(!site(&[("host", "a")]).is_from_elsewhere(), "no browser");
        assert!(site(&[("host", "a"), ("origin", "http://b"), ("sec-fetch-site", "none")]).is_from_elsewhere());
    }
}
