//! From settings to what the parts of the server want: addresses found, token file read, counts chosen, contradictions refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use media_core::layers::MAX_ENCODINGS;
use media_core::{CoreConfig, MediaDscp, SessionLimits};
use signaling::{AllowedOrigins, Limits, Redirects, SignalingConfig};

use super::access::{self, Sources};
use super::addresses::{AddressSource, Found, Network, Reading, System, is_loopback};
use super::http_values::{AdminListen, AdminToken, HostName};
use super::ice_servers;
use super::public_host::PublicHost;
use super::settings::Settings;
use super::tls;
use super::values::Origin;
use super::whep_values::Redirect;
use crate::admin_access::AdminAccess;
use crate::connections::ConnectionLimits;
use crate::tls::TlsSettings;

/// What the machine offers, as far as the configuration depends on it.
#[derive(Clone, Debug)]
pub struct Machine<N = System> {
    /// Its addresses, and those of others.
    pub network: N,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// An IPv6 socket can be opened.
    pub ipv6: bool,
    /// The public addresses of before: those that STUN servers said count until they say something else.
    pub known: Vec<Found>,
}

impl Machine {
    /// Looks at this machine.
    pub fn look() -> Machine {
        Machine {
            network: System,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            ipv6: std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok(),
            known: Vec::new(),
        }
    }
}

/// The settings with everything that had to be found out.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The media core's part.
    pub core: CoreConfig,
    /// Where its public addresses come from.
    pub addresses: AddressSource,
    /// What they are, and who says so.
    pub reading: Reading,
    /// Signalling's part.
    pub signaling: SignalingConfig,
    /// Who may use the admin listener.
    pub admin_access: AdminAccess,
    /// How many HTTP connections there may be.
    pub connections: ConnectionLimits,
    /// How the public listener speaks TLS; `None`: it speaks clear text.
    pub tls: Option<TlsSettings>,
    /// Things that are allowed but deserve a word in the log.
    pub warnings: Vec<String>,
}

/// Why the settings cannot be served; the text names the keys and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Contradiction(pub String);

/// Resolves the settings on a machine.
///
/// # Errors
///
/// A setting out of its range, settings that contradict each other, or a token file that cannot be read.
pub fn resolve(settings: &Settings, machine: &Machine<impl Network>) -> Result<Resolved, Contradiction> {
    let mut tokens = settings.token.clone();
    if !settings.token_file.as_os_str().is_empty() {
        tokens.extend(access::read_token_file(&settings.token_file)?);
    }
    let sources = access::sources(settings, &tokens)?;
    check_access(settings, !sources.is_empty())?;
    check_ranges(settings)?;
    let (core, addresses, reading) = core_config(settings, machine)?;
    let signaling = signaling_config(settings, sources)?;
    let admin_access = admin_access(settings)?;
    let connections = ConnectionLimits {
        total: settings.max_connections,
        per_address: settings.max_connections_per_address,
        ..ConnectionLimits::default()
    };
    let (tls, of_tls) = tls::resolve(settings, &machine.network)?;
    let mut warnings = warnings(settings, &core, &admin_access);
    let silent = reading.kept.iter().chain(&reading.absent);
    warnings.extend(silent.map(|why| format!("public_ip: {why}; clients are told {reading}")));
    warnings.extend(access::warnings(settings, &tokens));
    let tells_tokens = |redirect: &Redirect| settings.redirect_with_token && redirect.0.base().starts_with("http://");
    if settings.redirect.iter().any(tells_tokens) {
        warnings.push(
            "redirect_with_token: a target is http in clear text: whoever is on the way can read tokens".to_owned(),
        );
    }
    warnings.extend(ice_servers::warnings(&signaling.ice_servers, !settings.protect_viewers));
    warnings.extend(of_tls);
    Ok(Resolved { core, addresses, reading, signaling, admin_access, connections, tls, warnings })
}

pub(super) fn refuse<T>(text: String) -> Result<T, Contradiction> {
    Err(Contradiction(text))
}

/// Who may reach and use the listeners.
fn check_access(settings: &Settings, with_sources: bool) -> Result<(), Contradiction> {
    if settings.open && with_sources {
        return refuse("open: true, and tokens, JWT keys or a webhook are configured: drop one of the two".to_owned());
    }
    if settings.protect_viewers && !with_sources {
        return refuse(
            "protect_viewers: true, but no token is configured: add token, token_file, jwt_key_file, jwt_jwks_url or webhook_url"
                .to_owned(),
        );
    }
    if !is_loopback(settings.http_listen.ip()) && !with_sources && !settings.open {
        return refuse(format!(
            "http_listen: {} can be reached by others, and no token is configured, so anybody could publish.\n  \
             Either set a token (--token 'STREAM=SECRET', --token '*=SECRET' or --token-file FILE), or allow it with --open.",
            settings.http_listen
        ));
    }
    if settings.http_listen.port() != 0 && AdminListen::Tcp(settings.http_listen) == settings.admin_listen {
        return refuse(format!("http_listen and admin_listen: both are {}", settings.http_listen));
    }
    Ok(())
}

fn check_ranges(settings: &Settings) -> Result<(), Contradiction> {
    if settings.shards > 256 {
        return refuse(format!("shards: bad value {}\n  allowed: 0 to 256", settings.shards));
    }
    if settings.handshake_threads > 64 {
        return refuse(format!("handshake_threads: bad value {}\n  allowed: 0 to 64", settings.handshake_threads));
    }
    if settings.reserved_percent > 100 {
        let value = settings.reserved_percent;
        return refuse(format!("reserved_percent: bad value {value}\n  allowed: 0 to 100"));
    }
    if !(1..=MAX_ENCODINGS).contains(&settings.max_layers) {
        let value = settings.max_layers;
        return refuse(format!("max_layers: bad value {value}\n  allowed: 1 to {MAX_ENCODINGS}"));
    }
    let is_here = |redirect: &&Redirect| settings.public_url.0.as_deref() == Some(redirect.0.base());
    if let Some(redirect) = settings.redirect.iter().find(is_here) {
        return refuse(format!("redirect: {redirect} leads to this server itself, by public_url"));
    }
    if settings.tombstone.0 > signaling::ENDED_RETENTION {
        let (most, value) = (signaling::ENDED_RETENTION.as_secs(), settings.tombstone);
        return refuse(format!(
            "tombstone: bad value {value}\n  allowed: up to {most} s, as long as ended sessions are kept"
        ));
    }
    for (key, value) in [
        ("cache_memory", settings.cache_memory as usize),
        ("max_sessions", settings.max_sessions),
        ("max_connections", settings.max_connections),
        ("max_connections_per_address", settings.max_connections_per_address),
        ("max_ice_tcp_connections", settings.max_ice_tcp_connections),
    ] {
        if value == 0 {
            return refuse(format!("{key}: bad value 0\n  allowed: 1 or more"));
        }
    }
    Ok(())
}

fn warnings(settings: &Settings, core: &CoreConfig, admin_access: &AdminAccess) -> Vec<String> {
    let mut warnings = Vec::new();
    if !is_loopback(settings.http_listen.ip()) && settings.public_url.0.is_none() && !speaks_tls(settings) {
        // Whoever can alter the SDP on its way can sit in the middle of the media (RFC 8826).
        warnings.push(format!(
            "http_listen {} speaks clear text: give it a certificate (tls_cert, acme_domain, or tls_self_signed in one's own \
             network), or put a proxy with TLS in front and name its address by public_url",
            settings.http_listen
        ));
    }
    if settings.lan && settings.open {
        warnings.push("lan: everybody in this network may publish and watch; with a token they may not".to_owned());
    }
    let only_loopback = core.public_addresses.iter().all(|address| is_loopback(address.ip));
    if only_loopback && !settings.public_ip.is_empty() && !is_loopback(settings.http_listen.ip()) {
        warnings.push(format!(
            "public_ip has nothing but loopback, and http_listen {} can be reached by others: their media would go to themselves",
            settings.http_listen
        ));
    }
    if let AdminListen::Tcp(address) = settings.admin_listen
        && !is_loopback(address.ip())
        && !admin_access.wants_token()
    {
        warnings.push(format!(
            "admin_listen {address} can be reached by others and asks for no token: set admin_token, or guard it by a firewall"
        ));
    }
    warnings
}

fn speaks_tls(settings: &Settings) -> bool {
    settings.tls_self_signed || !settings.tls_cert.as_os_str().is_empty() || !settings.acme_domain.is_empty()
}

fn core_config(
    settings: &Settings,
    machine: &Machine<impl Network>,
) -> Result<(CoreConfig, AddressSource, Reading), Contradiction> {
    // One shard forwards some 250,000 packets a second, so four fill a 10 Gbit/s link; each also wants a UDP port in the firewall.
    let shards = if settings.shards == 0 { machine.cpus.clamp(1, 4) } else { settings.shards };
    if settings.media_port != 0 && usize::from(settings.media_port) + shards - 1 > usize::from(u16::MAX) {
        return refuse(format!(
            "media_port: {} with {shards} shards passes 65535; at most {} fits",
            settings.media_port,
            usize::from(u16::MAX) - (shards - 1)
        ));
    }
    // Handshakes come in bursts and must not take the CPUs from running media.
    let handshake_threads =
        if settings.handshake_threads == 0 { (machine.cpus / 2).max(1) } else { settings.handshake_threads };
    let media_ip = match settings.media_ip {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) if !machine.ipv6 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        ip => ip,
    };
    for port in settings.public_ip.iter().filter_map(PublicHost::port) {
        if usize::from(port) + shards - 1 > usize::from(u16::MAX) {
            return refuse(format!("public_ip: port {port} with {shards} shards passes 65535"));
        }
    }
    let with_loopback = is_loopback(settings.http_listen.ip());
    let addresses = AddressSource { configured: settings.public_ip.clone(), media_ip, with_loopback };
    let reading = addresses.read(&machine.network, &machine.known).map_err(|error| Contradiction(error.to_string()))?;
    let core = CoreConfig {
        shards,
        media_ip,
        media_port: settings.media_port,
        public_addresses: reading.addresses(),
        ice_tcp: settings.ice_tcp,
        // Known once the listener is there.
        ice_tcp_elsewhere: None,
        tcp_connections: settings.max_ice_tcp_connections,
        handshake_threads,
        cache_bytes: (settings.cache_memory.min(1 << 20) as usize) << 20,
        ice_private_candidates: settings.ice_private_candidates,
        ice_timeout: settings.ice_timeout.0,
        dtls_timeout: settings.dtls_timeout.0,
        liveness_timeout: settings.liveness_timeout.0,
        media_timeout: settings.media_timeout.0,
        media_gap: settings.media_gap.0,
        keyframe_timeout: settings.keyframe_timeout.0,
        publisher_wait: settings.publisher_wait.0,
        keyframe_request_interval: settings.keyframe_request_interval.0,
        l4s: settings.l4s,
        dscp: MediaDscp { audio: settings.dscp_audio.0, video: settings.dscp_video.0 },
    };
    Ok((core, addresses, reading))
}

fn signaling_config(settings: &Settings, sources: Sources) -> Result<SignalingConfig, Contradiction> {
    let guarded = !sources.is_empty();
    Ok(SignalingConfig {
        tokens: sources.tokens,
        jwt: sources.jwt,
        webhook: sources.webhook,
        protect_viewers: settings.protect_viewers,
        auth_failures: settings.auth_failures,
        enforce_expiry: settings.enforce_expiry,
        end_revoked: settings.end_revoked,
        url_tokens: settings.url_tokens,
        session_url_suffices: settings.session_url_suffices,
        ice_mode: settings.ice.0,
        public_base_url: settings.public_url.0.clone(),
        allowed_origins: allowed_origins(settings, guarded),
        host_names: host_names(settings, guarded),
        trusted_proxies: settings.trusted_proxies.iter().map(|prefix| prefix.0).collect(),
        redirects: Redirects {
            rules: settings.redirect.iter().map(|redirect| redirect.0.clone()).collect(),
            status: settings.redirect_status.0,
            with_token: settings.redirect_with_token,
        },
        answer_rtcp_mux_only: settings.answer_rtcp_mux_only,
        require_live: settings.require_live,
        not_live_retry: settings.not_live_retry.0,
        unknown_stream: settings.unknown_stream_status.0,
        strict_sections: settings.strict_sections,
        counter_offer: settings.counter_offer,
        counter_offer_timeout: settings.counter_offer_timeout.0,
        whep_extensions: settings.whep_extensions,
        reconnect_url: settings.reconnect_url.0.clone(),
        tombstone: settings.tombstone.0,
        limits: limits(settings),
        ice_servers: ice_servers::ice_servers(settings)?,
        trickle: settings.trickle,
        ice_restart: settings.ice_restart,
        lenient_if_match: settings.lenient_if_match,
        slash_names: settings.slash_names,
        publish_takeover: settings.publish_takeover.0,
        max_layers: settings.max_layers,
        publisher_limits: session_limits(settings.publisher_bitrate, settings.publisher_packet_rate),
        viewer_limits: session_limits(settings.viewer_bitrate, settings.viewer_packet_rate),
        ice_timeout: settings.ice_timeout.0,
        liveness_timeout: settings.liveness_timeout.0,
    })
}

/// Whose pages may use the server. Without tokens whoever reaches it may, and so could every page that somebody opens who does.
fn allowed_origins(settings: &Settings, with_tokens: bool) -> AllowedOrigins {
    let listed = || settings.cors_origins.iter().map(|origin| origin.0.clone()).collect();
    if settings.cors_origins.contains(&Origin::any()) {
        AllowedOrigins::Any
    } else if !settings.cors_origins.is_empty() {
        AllowedOrigins::List(listed())
    } else if with_tokens {
        AllowedOrigins::Any
    } else {
        let public = settings.public_url.0.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
        let origin = public.and_then(|url| Some(format!("{}://{}", url.scheme_str()?, url.authority()?)));
        AllowedOrigins::Own(origin.map(|origin| origin.to_ascii_lowercase()).into_iter().collect())
    }
}

/// The names that requests may be addressed to. On loopback without tokens whoever runs a program here may use the server, and
/// so could a page whose own name leads here.
fn host_names(settings: &Settings, with_tokens: bool) -> Option<Vec<String>> {
    let guarded = is_loopback(settings.http_listen.ip()) && !with_tokens;
    if settings.http_hosts.is_empty() && !guarded {
        return None;
    }
    let public = settings.public_url.0.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
    let public = public.and_then(|url| url.host().map(str::to_ascii_lowercase));
    let own = settings.http_hosts.iter().chain(&settings.acme_domain);
    Some(own.map(|HostName(name)| name.clone()).chain(public).collect())
}

fn admin_access(settings: &Settings) -> Result<AdminAccess, Contradiction> {
    let hosts = settings.admin_hosts.iter().map(|HostName(name)| name.clone()).collect();
    let path = &settings.admin_token_file;
    if path.as_os_str().is_empty() {
        return Ok(AdminAccess::new(hosts, settings.admin_token.0));
    }
    if settings.admin_token.0.is_some() {
        return refuse("admin_token and admin_token_file: drop one of the two".to_owned());
    }
    let wrong = |why: String| Contradiction(format!("admin_token_file: {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    match text.parse::<AdminToken>() {
        Ok(AdminToken(Some(token))) => Ok(AdminAccess::new(hosts, Some(token))),
        Ok(AdminToken(None)) => Err(wrong("is empty".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// In bit/s and packets a second; 0 is no limit.
fn session_limits(bits: u64, packets: u64) -> SessionLimits {
    let limit = |value| Some(value).filter(|&value| value > 0);
    SessionLimits { bits_per_second: limit(bits), packets_per_second: limit(packets) }
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        max_sessions: settings.max_sessions,
        reserved_percent: settings.reserved_percent,
        max_sessions_per_address: settings.max_sessions_per_address,
        max_sessions_per_token: settings.max_sessions_per_token,
        max_viewers_per_stream: settings.max_viewers_per_stream,
        max_streams: settings.max_streams,
        max_streams_per_address: settings.max_streams_per_address,
        max_streams_per_token: settings.max_streams_per_token,
        max_half_open: settings.max_half_open,
        max_half_open_per_address: settings.max_half_open_per_address,
        max_half_open_per_token: settings.max_half_open_per_token,
        join_rate: settings.join_rate,
        post_rate_per_address: settings.post_rate_per_address,
        post_rate_per_token: settings.post_rate_per_token,
        request_rate_per_address: settings.request_rate_per_address,
        request_rate_per_session: settings.request_rate_per_session,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::addresses::InterfaceAddress;
    use crate::config::discovery::AskError;
    use crate::config::values::Seconds;

    fn hosts(list: &[&str]) -> Vec<PublicHost> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    /// A machine without network.
    #[derive(Clone)]
    struct Alone;

    impl Network for Alone {
        fn interfaces(&self) -> std::io::Result<Vec<InterfaceAddress>> {
            Ok(Vec::new())
        }
        fn lookup(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
            Err(std::io::Error::other("no network"))
        }
        fn ask(&self, _: std::net::SocketAddr, _: IpAddr) -> Result<IpAddr, AskError> {
            Err(AskError::NoRoute("no network".to_owned()))
        }
    }

    fn machine() -> Machine<Alone> {
        Machine { network: Alone, cpus: 8, ipv6: true, known: Vec::new() }
    }

    fn refused(settings: Settings) -> String {
        resolve(&settings, &machine()).unwrap_err().0
    }

    const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    #[test]
    fn an_address_that_others_reach_wants_a_token_or_leave() {
        let mut settings = Settings { http_listen: "0.0.0.0:8080".parse().unwrap(), ..Settings::default() };
        let message = refused(settings.clone());
        assert!(message.contains("--token") && message.contains("--open"), "{message}");
        settings.open = true;
        assert!(resolve(&settings, &machine()).is_ok());
        settings.open = false;
        settings.token = vec!["*=x".parse().unwrap()];
        assert!(resolve(&settings, &machine()).is_ok());
        settings.open = true;
        assert!(refused(settings).starts_with("open: "));
    }

    #[test]
    fn protected_viewers_without_any_token_are_refused() {
        assert!(refused(Settings { protect_viewers: true, ..Settings::default() }).starts_with("protect_viewers: "));
    }

    #[test]
    fn counts_follow_the_machine_unless_given() {
        let resolved = resolve(&Settings::default(), &machine()).unwrap();
        assert_eq!((resolved.core.shards, resolved.core.handshake_threads), (4, 4));
        let settings = Settings { shards: 6, handshake_threads: 1, ..Settings::default() };
        let resolved = resolve(&settings, &machine()).unwrap();
        assert_eq!((resolved.core.shards, resolved.core.handshake_threads), (6, 1));
    }

    #[test]
    fn the_ports_of_all_shards_must_exist() {
        let message = refused(Settings { media_port: 65_534, shards: 3, ..Settings::default() });
        assert!(message.contains("at most 65533"), "{message}");
        assert!(resolve(&Settings { media_port: 65_533, shards: 3, ..Settings::default() }, &machine()).is_ok());
    }

    #[test]
    fn without_ipv6_the_media_sockets_are_ipv4() {
        let resolved = resolve(&Settings::default(), &Machine { ipv6: false, ..machine() }).unwrap();
        assert_eq!(resolved.core.media_ip, ANY4);
    }

    #[test]
    fn a_public_address_of_another_family_is_refused() {
        let settings = Settings { media_ip: ANY4, public_ip: hosts(&["2001:db8::1"]), ..Settings::default() };
        assert!(refused(settings).starts_with("public_ip: "));
        assert!(refused(Settings { public_ip: hosts(&["0.0.0.0"]), ..Settings::default() }).contains("0.0.0.0"));
    }

    // F-14
    #[test]
    fn mapped_ports_must_exist_and_names_must_be_found() {
        let settings = Settings { public_ip: hosts(&["203.0.113.7:65534"]), shards: 3, ..Settings::default() };
        assert!(refused(settings).contains("public_ip: port 65534 with 3 shards passes 65535"));
        let settings = Settings { public_ip: hosts(&["media.example.org"]), ..Settings::default() };
        assert_eq!(refused(settings), "public_ip: media.example.org cannot be looked up: no network");
    }

    // F-14
    #[test]
    fn loopback_alone_for_pages_that_others_reach_deserves_a_word() {
        let warned = |public: &[&str]| {
            let http_listen = "0.0.0.0:8080".parse().unwrap();
            let settings = Settings { http_listen, open: true, public_ip: hosts(public), ..Settings::default() };
            let warnings = resolve(&settings, &machine()).unwrap().warnings;
            warnings.iter().any(|warning| warning.starts_with("public_ip has nothing but loopback"))
        };
        assert!(warned(&["127.0.0.1"]) && warned(&["::1", "127.0.0.1:31000"]));
        assert!(!warned(&["127.0.0.1", "203.0.113.7"]));
    }

    // M3
    #[test]
    fn without_tokens_own_pages_alone_may_unless_others_are_named() {
        let origins = |settings: &Settings| resolve(settings, &machine()).unwrap().signaling.allowed_origins;
        let mut settings = Settings::default();
        assert_eq!(origins(&settings), AllowedOrigins::Own(Vec::new()));
        settings.public_url = "https://Live.example/base".parse().unwrap();
        assert_eq!(origins(&settings), AllowedOrigins::Own(vec!["https://live.example".to_owned()]));
        settings.token = vec!["*=x".parse().unwrap()];
        assert_eq!(origins(&settings), AllowedOrigins::Any);
        settings.cors_origins = vec!["https://app.example".parse().unwrap()];
        assert_eq!(origins(&settings), AllowedOrigins::List(vec!["https://app.example".to_owned()]));
        settings = Settings { cors_origins: vec![Origin::any()], ..Settings::default() };
        assert_eq!(origins(&settings), AllowedOrigins::Any);
    }

    // M3
    #[test]
    fn names_are_checked_on_loopback_without_tokens_and_where_they_are_given() {
        let names = |settings: &Settings| resolve(settings, &machine()).unwrap().signaling.host_names;
        let mut settings =
            Settings { public_url: "https://Live.example:8443/base".parse().unwrap(), ..Settings::default() };
        assert_eq!(names(&settings), Some(vec!["live.example".to_owned()]));
        settings.http_listen = "0.0.0.0:8080".parse().unwrap();
        settings.open = true;
        assert_eq!(names(&settings), None, "its names are not known");
        settings.http_hosts = vec!["media.example".parse().unwrap()];
        assert_eq!(names(&settings), Some(vec!["media.example".to_owned(), "live.example".to_owned()]));
        let settings = Settings { token: vec!["*=x".parse().unwrap()], ..Settings::default() };
        assert_eq!(names(&settings), None);
    }

    // M2
    #[test]
    fn the_admin_token_may_stand_in_a_file() {
        let path = std::env::temp_dir().join(format!("sluice-{}-admin-token", std::process::id()));
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let mut settings = Settings { admin_token_file: path.clone(), ..Settings::default() };
        settings.admin_listen = "0.0.0.0:8081".parse().unwrap();
        let resolved = resolve(&settings, &machine()).unwrap();
        assert!(resolved.admin_access.wants_token() && resolved.warnings.is_empty());
        settings.admin_token = "0123456789abcdef".parse().unwrap();
        assert!(refused(settings.clone()).starts_with("admin_token and admin_token_file"));
        settings.admin_token = AdminToken::default();
        for text in ["", "short", "two words in one file"] {
            std::fs::write(&path, text).unwrap();
            let message = refused(settings.clone());
            assert!(
                message.starts_with("admin_token_file: ") && (text.is_empty() || !message.contains(text)),
                "{message}"
            );
        }
        std::fs::remove_file(&path).unwrap();
        assert!(refused(settings).starts_with("admin_token_file: "));
    }

    #[test]
    fn timeouts_reach_the_core() {
        let settings = Settings { ice_timeout: Seconds(std::time::Duration::from_secs(7)), ..Settings::default() };
        let resolved = resolve(&settings, &machine()).unwrap();
        assert_eq!(resolved.core.ice_timeout.as_secs(), 7);
        assert_eq!(resolved.signaling.ice_timeout.as_secs(), 7, "for Retry-After");
    }
}
