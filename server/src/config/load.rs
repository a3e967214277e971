//! Reads the layers of the configuration: flags, environment, file.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser};

use super::settings::{Layer, SETTINGS, SettingInfo, Settings, plain, setting};

/// A WebRTC media server: publish over WHIP, watch over WHEP.
///
/// Try it: run `sluice`, then open http://127.0.0.1:8080/ in a browser.
#[derive(Debug, Parser)]
#[command(
    name = "sluice",
    version,
    max_term_width = 110,
    after_help = "\
Every setting is also a key of the TOML file (http_listen) and an environment variable (SLUICE_HTTP_LISTEN).
A flag wins over the environment, the environment over the file, the file over the default.

`sluice hash-token` makes a line of a token file that holds a token as its digest."
)]
struct CommandLine {
    /// TOML file with settings.
    #[arg(long, env = CONFIG_ENV, hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration, print what counts and where each value comes from, and stop.
    #[arg(long)]
    check_config: bool,
    #[command(flatten)]
    layer: Layer,
}

const CONFIG_ENV: &str = "SLUICE_CONFIG";
const ENV_PREFIX: &str = "SLUICE_";

/// Where `lan` listens.
const LAN_LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 8443));

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Source {
    /// Built in.
    Default,
    /// The TOML file.
    File,
    /// An environment variable.
    Environment,
    /// The command line.
    Flag,
    /// It follows from `lan`.
    Lan,
}

/// The settings that count, and where each comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Source by key; keys that are missing have their default.
    pub sources: HashMap<&'static str, Source>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Only check and print.
    pub check_only: bool,
}

impl Loaded {
    /// Where the value of a key comes from.
    pub fn source(&self, key: &str) -> Source {
        self.sources.get(key).copied().unwrap_or(Source::Default)
    }
}

/// Why there is no configuration to run with.
#[derive(Debug)]
pub enum LoadError {
    /// The user asked for help or for the version: print this to stdout, exit code 0.
    Information(String),
    /// Something is wrong: print this to stderr, exit code 2.
    Wrong(String),
}

impl LoadError {
    fn wrong(text: impl Into<String>) -> LoadError {
        LoadError::Wrong(text.into())
    }
}

/// Reads all layers. `args` begins with the program's name; `environment` is all of it, other variables are ignored.
///
/// # Errors
///
/// [`LoadError::Information`] on `--help` and `--version`, else [`LoadError::Wrong`] with key, value and what is allowed.
pub fn load(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, LoadError> {
    let flags = read_flags(args.into_iter().collect())?;
    let (environment, env_file) = read_environment(environment)?;
    let file = flags.config.or(env_file);
    let mut settings = Settings::default();
    let mut sources: HashMap<&'static str, Source> = HashMap::new();
    let mut apply = |layer: Layer, source: Source| {
        settings.apply(layer, |key| {
            sources.insert(key, source);
        });
    };
    if let Some(path) = &file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| LoadError::wrong(format!("cannot read the configuration {}: {error}", path.display())))?;
        apply(read_file(path, &text)?, Source::File);
    }
    apply(environment, Source::Environment);
    apply(flags.layer, Source::Flag);
    if settings.lan {
        apply_lan(&mut settings, &mut sources);
    }
    Ok(Loaded { settings, sources, file, check_only: flags.check_config })
}

/// What `lan` says, of what nothing else says.
fn apply_lan(settings: &mut Settings, sources: &mut HashMap<&'static str, Source>) {
    const SAYS_WHO_MAY: &[&str] = &["open", "token", "token_file", "jwt_key_file", "jwt_jwks_url", "webhook_url"];
    const GIVES_A_CERTIFICATE: &[&str] = &["tls_self_signed", "tls_cert", "tls_key", "acme_domain"];
    let is_given = |keys: &[&str]| keys.iter().any(|key| sources.contains_key(key));
    let layer = Layer {
        http_listen: (!is_given(&["http_listen"])).then_some(LAN_LISTEN),
        tls_self_signed: (!is_given(GIVES_A_CERTIFICATE)).then_some(true),
        open: (!is_given(SAYS_WHO_MAY)).then_some(true),
        ..Layer::default()
    };
    settings.apply(layer, |key| {
        sources.insert(key, Source::Lan);
    });
}

fn read_flags(args: Vec<OsString>) -> Result<CommandLine, LoadError> {
    // The environment is a layer of its own here, so that errors can name it; clap only shows it in the help.
    let command = CommandLine::command().mut_args(|arg| arg.env(None::<&'static str>));
    let matches = command.try_get_matches_from(&args).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp => LoadError::Information(help(&args)),
        ErrorKind::DisplayVersion => LoadError::Information(error.render().to_string()),
        _ => wrong_value(&error, |info| info.flag())
            .unwrap_or_else(|| LoadError::wrong(error.render().to_string().trim_start_matches("error: ").trim_end())),
    })?;
    CommandLine::from_arg_matches(&matches).map_err(|error| LoadError::wrong(error.to_string()))
}

fn help(args: &[OsString]) -> String {
    let short = args.iter().any(|arg| arg == "-h");
    let defaults = Settings::default().to_toml();
    let mut command = CommandLine::command().mut_args(|arg| {
        let arg = arg.hide_env(short);
        // In the order of most people's questions: what it does, and what happens without it.
        match (arg.get_help().map(ToString::to_string), defaults.get(arg.get_id().as_str())) {
            (Some(help), Some(default)) => {
                let arg = arg.hide_possible_values(true);
                let help = format!("{help} [default: {}]", plain(default));
                arg.help(help.clone()).long_help(help)
            }
            _ => arg,
        }
    });
    let text = if short { command.render_help() } else { command.render_long_help() };
    text.to_string()
}

fn read_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Layer, Option<PathBuf>), LoadError> {
    let mut file = None;
    let mut args = vec![OsString::from("sluice")];
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(ENV_PREFIX)) else { continue };
        if is_kubernetes_link(name) {
            continue;
        }
        let info = SETTINGS.iter().find(|info| info.env == name);
        if info.is_none() && name != CONFIG_ENV {
            let known: Vec<_> = std::iter::once(CONFIG_ENV).chain(SETTINGS.iter().map(|info| info.env)).collect();
            return Err(LoadError::wrong(format!(
                "unknown environment variable {name}\n  allowed: {}",
                known.join(", ")
            )));
        }
        // An empty variable means "not set", as compose files write it.
        if value.is_empty() {
            continue;
        }
        match info {
            Some(info) => {
                let mut arg = OsString::from(info.flag());
                arg.push(OsStr::new("="));
                arg.push(&value);
                args.push(arg);
            }
            None => file = Some(PathBuf::from(value)),
        }
    }
    let command = Layer::augment_args(clap::Command::new("sluice")).mut_args(|arg| arg.env(None::<&'static str>));
    let matches = command.try_get_matches_from(args).map_err(|error| {
        wrong_value(&error, |info| info.env.to_owned()).unwrap_or_else(|| LoadError::wrong(error.to_string()))
    })?;
    let layer = Layer::from_arg_matches(&matches).map_err(|error| LoadError::wrong(error.to_string()))?;
    Ok((layer, file))
}

/// Kubernetes gives every container variables named after each service beside it; a service `sluice` makes these.
fn is_kubernetes_link(name: &str) -> bool {
    name == "SLUICE_PORT" || name.starts_with("SLUICE_PORT_") || name.starts_with("SLUICE_SERVICE_")
}

/// Clap's complaint about one value, in our words; `None` for complaints of another kind.
fn wrong_value(error: &clap::Error, name: impl Fn(&SettingInfo) -> String) -> Option<LoadError> {
    let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = arg.split(['=', ' ', '[']).next().unwrap_or(arg);
    let info = SETTINGS.iter().find(|info| info.flag() == flag)?;
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.as_str(),
        _ => return None,
    };
    let why = std::error::Error::source(error).map(|source| source.to_string());
    Some(bad_value(&name(info), info, &format!("{value:?}"), why.as_deref().unwrap_or("bad value")))
}

fn bad_value(place: &str, info: &SettingInfo, value: &str, why: &str) -> LoadError {
    // What follows a token's key may be a secret even where it is malformed.
    let value = if matches!(info.key, "token" | "admin_token" | "turn_secret" | "turn_credential") {
        String::new()
    } else {
        format!(" {value}")
    };
    LoadError::wrong(format!("{place}: bad value{value}: {why}\n  allowed: {}", info.allowed))
}

/// Reads the TOML file's text.
pub(super) fn read_file(path: &Path, text: &str) -> Result<Layer, LoadError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let number = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
        // The error may lie inside a list over several lines: its key is the last one at or above it.
        let found = text.lines().take(number).enumerate().filter_map(|(index, line)| {
            let (key, value) = line.split_once('=')?;
            Some((index + 1, setting(key.trim())?, value.trim()))
        });
        let unknown = error.message().starts_with("unknown field");
        match found.last() {
            Some((line, info, value)) if !unknown && (line == number || !error.message().contains("TOML")) => {
                bad_value(&format!("{}, line {line}: {}", path.display(), info.key), info, value, error.message())
            }
            _ if unknown => {
                let key = error.message().split('`').nth(1).unwrap_or_default();
                let known: Vec<_> = SETTINGS.iter().map(|info| info.key).collect();
                LoadError::wrong(format!(
                    "{}, line {number}: unknown key {key}\n  allowed: {}",
                    path.display(),
                    known.join(", ")
                ))
            }
            _ => LoadError::wrong(format!("{}, line {number}: {}", path.display(), error.message())),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(list: &[&str]) -> Vec<OsString> {
        std::iter::once("sluice").chain(list.iter().copied()).map(OsString::from).collect()
    }

    fn env(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        list.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn wrong(result: Result<Loaded, LoadError>) -> String {
        match result {
            Err(LoadError::Wrong(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    fn with_file<T>(name: &str, text: &str, run: impl FnOnce(&str) -> T) -> T {
        let path = std::env::temp_dir().join(format!("sluice-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let result = run(path.to_str().unwrap());
        std::fs::remove_file(path).unwrap();
        result
    }

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
        let text = "media_port = 1\nshards = 1\nice_timeout = 50\nice = \"full\"\n";
        with_file("precedence", text, |path| {
            let loaded = load(
                args(&["--media-port", "3", "--config", path]),
                env(&[("SLUICE_MEDIA_PORT", "2"), ("SLUICE_SHARDS", "2"), ("HOME", "/")]),
            )
            .unwrap();
            assert_eq!(loaded.settings.media_port, 3);
            assert_eq!(loaded.settings.shards, 2);
            assert_eq!(loaded.settings.ice_timeout.to_string(), "50s");
            assert_eq!(loaded.settings.dtls_timeout, Settings::default().dtls_timeout);
            let sources = ["media_port", "shards", "ice", "dtls_timeout"].map(|key| loaded.source(key));
            assert_eq!(sources, [Source::Flag, Source::Environment, Source::File, Source::Default]);
        });
    }

    #[test]
    fn the_file_may_be_named_by_the_environment() {
        with_file("by-environment", "shards = 3\n", |path| {
            let loaded = load(args(&[]), env(&[("SLUICE_CONFIG", path)])).unwrap();
            assert_eq!(loaded.settings.shards, 3);
            assert_eq!(loaded.file.as_deref(), Some(Path::new(path)));
        });
    }

    #[test]
    fn lan_says_what_nothing_else_says() {
        let loaded = load(args(&["--lan"]), env(&[])).unwrap();
        let settings = &loaded.settings;
        assert_eq!(settings.http_listen.to_string(), "0.0.0.0:8443");
        assert!(settings.tls_self_signed && settings.open);
        assert_eq!(loaded.source("open"), Source::Lan);
        let given = ["--lan", "--http-listen", "192.0.2.7:443", "--tls-cert", "c", "--tls-key", "k", "--token", "*=x"];
        let settings = load(args(&given), env(&[])).unwrap().settings;
        assert_eq!(settings.http_listen.to_string(), "192.0.2.7:443");
        assert!(!settings.tls_self_signed && !settings.open);
        assert!(!load(args(&["--lan", "--open=false"]), env(&[])).unwrap().settings.open);
    }

    #[test]
    fn lists_and_switches_are_read_from_every_layer() {
        let text = "token = [\"a=1\", \"*=2\"]\ncors_origins = \"https://x.example\"\nopen = true\n";
        with_file("lists", text, |path| {
            let loaded = load(args(&["--config", path]), env(&[])).unwrap();
            assert_eq!(loaded.settings.token.len(), 2);
            assert_eq!(loaded.settings.cors_origins.len(), 1);
            assert!(loaded.settings.open);
        });
        let loaded = load(
            args(&["--token", "a=1", "--token", "b=2", "--open", "--protect-viewers=false"]),
            env(&[
                ("SLUICE_PUBLIC_IP", "192.0.2.1,[2001:db8::1]:31000,media.example.org"),
                ("SLUICE_PROTECT_VIEWERS", "true"),
            ]),
        )
        .unwrap();
        assert_eq!(loaded.settings.token.len(), 2);
        assert_eq!(loaded.settings.public_ip.len(), 3);
        assert!(loaded.settings.open && !loaded.settings.protect_viewers);
    }

    #[test]
    fn an_unknown_key_of_the_file_is_named_with_its_place_and_what_is_allowed() {
        let message = with_file("unknown", "shards = 1\nhtp_listen = \"x\"\n", |path| {
            wrong(load(args(&["--config", path]), env(&[])))
        });
        assert!(message.contains("line 2: unknown key htp_listen"), "{message}");
        assert!(message.contains("allowed: http_listen, admin_listen"), "{message}");
        let message =
            with_file("table", "[http]\nlisten = \"x\"\n", |path| wrong(load(args(&["--config", path]), env(&[]))));
        assert!(message.contains("line 1: unknown key http"), "{message}");
    }

    #[test]
    fn a_bad_value_is_named_with_its_place_and_what_is_allowed() {
        let message = with_file("bad", "\nhttp_listen = \"localhost\"\n", |path| {
            wrong(load(args(&["--config", path]), env(&[])))
        });
        assert!(message.contains("line 2: http_listen: bad value \"localhost\":"), "{message}");
        assert!(message.contains("allowed: an address and a port"), "{message}");
        let message = wrong(load(args(&[]), env(&[("SLUICE_ICE", "semi")])));
        assert!(message.starts_with("SLUICE_ICE: bad value \"semi\": unknown ICE"), "{message}");
        assert!(message.ends_with("allowed: lite or full"), "{message}");
        let message = wrong(load(args(&["--media-port", "70000"]), env(&[])));
        assert!(message.starts_with("--media-port: bad value \"70000\": "), "{message}");
        assert!(message.contains("allowed: 0 to 65535"), "{message}");
        let message = with_file("list", "public_ip = [\n  \"192.0.2.1\",\n  \"not here\",\n]\n", |path| {
            wrong(load(args(&["--config", path]), env(&[])))
        });
        assert!(message.contains("public_ip: bad value"), "{message}");
    }

    #[test]
    fn a_malformed_file_is_named_with_its_line() {
        let message =
            with_file("syntax", "shards = 1\nice = = 3\n", |path| wrong(load(args(&["--config", path]), env(&[]))));
        assert!(message.contains("line 2: "), "{message}");
    }

    #[test]
    fn an_unknown_variable_or_flag_stops_the_start() {
        let message = wrong(load(args(&[]), env(&[("SLUICE_LISTEN", "x")])));
        assert!(
            message.starts_with("unknown environment variable SLUICE_LISTEN\n  allowed: SLUICE_CONFIG, "),
            "{message}"
        );
        let message = wrong(load(args(&["--listen", "x"]), env(&[])));
        assert!(message.contains("--listen"), "{message}");
    }

    #[test]
    fn variables_that_kubernetes_makes_for_a_service_are_no_settings() {
        let links = [("SLUICE_SERVICE_HOST", "10.0.0.1"), ("SLUICE_PORT", "tcp://10.0.0.1:80"), ("SLUICE_LOG", "")];
        assert!(load(args(&[]), env(&links)).is_ok());
    }

    #[test]
    fn a_bad_token_is_never_shown() {
        let secret = "hunter2 hunter2";
        let messages = [
            wrong(load(args(&["--token", secret]), env(&[]))),
            wrong(load(args(&[]), env(&[("SLUICE_TOKEN", secret)]))),
            with_file("token", &format!("token = [\"{secret}\"]\n"), |path| {
                wrong(load(args(&["--config", path]), env(&[])))
            }),
            with_file("token-alone", &format!("token = {{ cam = \"{secret}\" }}\n"), |path| {
                wrong(load(args(&["--config", path]), env(&[])))
            }),
        ];
        for message in messages {
            assert!(!message.contains("hunter2"), "{message}");
            assert!(message.contains("STREAM=TOKEN"), "{message}");
        }
    }

    #[test]
    fn help_shows_flags_with_their_variables() {
        let Err(LoadError::Information(text)) = load(args(&["--help"]), env(&[])) else { panic!() };
        for info in SETTINGS {
            assert!(text.contains(&info.flag()), "{}", info.key);
            assert!(text.contains(&format!("[env: {}]", info.env)), "{}", info.key);
        }
        assert!(matches!(load(args(&["--version"]), env(&[])), Err(LoadError::Information(_))));
    }

    #[test]
    fn names_of_flag_variable_and_key_agree() {
        for info in SETTINGS {
            assert_eq!(info.env, format!("SLUICE_{}", info.key.to_ascii_uppercase()));
        }
        clap::Command::debug_assert(CommandLine::command());
    }
}
