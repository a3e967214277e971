//! Entry points of the fuzz targets: one function a parser, which takes any bytes and panics only over a bug.
//!
//! `fuzz/` calls them from libFuzzer; `tests/fuzz_corpus/` runs the corpus and mutations of it through them with every test
//! run. A new parser needs a function here, a line in [`TARGETS`], a file in `fuzz/fuzz_targets/` with its `[[bin]]`, and a
//! directory of samples in `fuzz/corpus/`; a test sees to it that none is forgotten.

use std::fmt::{Debug, Display};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use media_core::fuzzing::{Target, target};

use super::Settings;
use super::access::parse_token_file;
use super::addresses::{InterfaceAddress, Network};
use super::discovery::AskError;
use super::http_values::{AdminListen, AdminToken, HostName, ProxyPrefix};
use super::load::{LoadError, read_file};
use super::public_host::PublicHost;
use super::resolve::{Machine, resolve};
use super::values::{Away, BaseUrl, Ice, LogFilter, LogFormat, Origin, Seconds, ServiceUrl, Takeover};

/// Every fuzz target.
pub const TARGETS: &[Target] =
    &[target("configuration", configuration), target("setting", setting), target("token_file", token_file)];

/// A machine with one address, and no names.
struct Alone;

impl Network for Alone {
    fn interfaces(&self) -> std::io::Result<Vec<InterfaceAddress>> {
        Ok(vec![InterfaceAddress { interface: "eth0".to_owned(), address: IpAddr::from([192, 0, 2, 1]) }])
    }

    fn lookup(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        Err(std::io::Error::other("no network"))
    }

    fn ask(&self, _: SocketAddr, _: IpAddr) -> Result<IpAddr, AskError> {
        Ok(IpAddr::from([203, 0, 113, 7]))
    }
}

/// A TOML file: read, shown, read again, and resolved.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = |text: &str| {
        let mut settings = Settings::default();
        settings.apply(read_file(Path::new("sluice.toml"), text)?, |_| ());
        Ok::<_, LoadError>(settings)
    };
    let mut settings = match read(text) {
        Ok(settings) => settings,
        Err(LoadError::Wrong(message)) => {
            assert!(message.starts_with("sluice.toml, line "), "{message}");
            return;
        }
        Err(LoadError::Information(text)) => panic!("nobody asked for {text}"),
    };
    let machine = Machine { network: Alone, cpus: 2, ipv6: true, known: Vec::new() };
    // Other files are none of this target's.
    for file in [
        &mut settings.token_file,
        &mut settings.admin_token_file,
        &mut settings.jwt_key_file,
        &mut settings.webhook_secret_file,
    ] {
        *file = PathBuf::new();
    }
    if let Err(refused) = resolve(&settings, &machine) {
        assert!(!refused.0.is_empty());
    }
    // Secrets are not shown.
    settings.token.clear();
    settings.admin_token = AdminToken::default();
    let shown = toml::to_string(&settings.to_toml()).expect("settings have a TOML form");
    match read(&shown) {
        Ok(again) => assert!(again == settings, "{shown}"),
        Err(error) => panic!("{error:?} in {shown}"),
    }
}

/// The text of one setting, as every type that has one.
pub fn setting(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    fn reads_again<T: FromStr + Display + PartialEq + Debug>(text: &str) {
        let Ok(value) = text.parse::<T>() else { return };
        let shown = value.to_string();
        assert_eq!(shown.parse::<T>().ok().as_ref(), Some(&value), "{shown:?}");
    }
    reads_again::<AdminListen>(text);
    reads_again::<Away>(text);
    reads_again::<BaseUrl>(text);
    reads_again::<HostName>(text);
    reads_again::<Ice>(text);
    reads_again::<LogFilter>(text);
    reads_again::<LogFormat>(text);
    reads_again::<Origin>(text);
    reads_again::<ProxyPrefix>(text);
    reads_again::<PublicHost>(text);
    reads_again::<Seconds>(text);
    reads_again::<ServiceUrl>(text);
    reads_again::<Takeover>(text);
    if let Ok(token) = text.parse::<AdminToken>() {
        assert!(token.0.is_none() || token.to_string() == "<redacted>");
    }
}

/// A file of tokens. What is wrong is named by its line, without what stands there.
pub fn token_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse_token_file(Path::new("tokens"), text) {
        Ok(tokens) => {
            assert!(tokens.len() <= text.lines().count());
            assert!(tokens.iter().all(|token| token.to_string().ends_with("=<redacted>")));
        }
        Err(refused) => {
            assert!(refused.0.starts_with("token_file: tokens, line "), "{}", refused.0);
        }
    }
}
