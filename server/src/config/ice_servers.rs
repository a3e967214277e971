//! Settings of the STUN and TURN servers that clients are told of.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use signaling::{BadIceServer, IceServerUrl, IceServers, TurnCredentials};

use super::resolve::{Contradiction, refuse};
use super::settings::Settings;
use super::values::{BadValue, bad, by_text};

by_text!(IceServer, HiddenText);

/// The URL of a STUN or TURN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServer(pub IceServerUrl);

impl FromStr for IceServer {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<IceServer, BadValue> {
        text.parse().map(IceServer).map_err(|error: BadIceServer| bad(error.to_string()))
    }
}

impl fmt::Display for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A password or secret, or nothing. Its text and debug forms hide it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HiddenText(String);

impl FromStr for HiddenText {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<HiddenText, BadValue> {
        Ok(HiddenText(text.to_owned()))
    }
}

impl fmt::Display for HiddenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "" } else { "<redacted>" })
    }
}

impl fmt::Debug for HiddenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What clients are told of.
pub(super) fn ice_servers(settings: &Settings) -> Result<IceServers, Contradiction> {
    let urls: Vec<IceServerUrl> = settings.ice_server.iter().map(|server| server.0.clone()).collect();
    let credentials = credentials(settings)?;
    match (urls.iter().find(|url| url.needs_credentials()), &credentials) {
        (Some(url), None) => refuse(format!(
            "ice_server: {url} needs credentials: add turn_secret_file, or turn_username and turn_credential_file"
        )),
        (None, Some(_)) => refuse("turn_secret, turn_username: no ice_server is a TURN server".to_owned()),
        _ => Ok(IceServers { urls, credentials }),
    }
}

/// What is allowed and deserves a word.
pub(super) fn warnings(servers: &IceServers, everybody_may_watch: bool) -> Vec<String> {
    let is_fixed = matches!(servers.credentials, Some(TurnCredentials::Fixed { .. }));
    let text =
        "turn_credential is told to everybody, as everybody may watch: turn_secret makes credentials that expire";
    if is_fixed && everybody_may_watch { vec![text.to_owned()] } else { Vec::new() }
}

fn credentials(settings: &Settings) -> Result<Option<TurnCredentials>, Contradiction> {
    let secret = hidden("turn_secret", &settings.turn_secret, &settings.turn_secret_file)?;
    let credential = hidden("turn_credential", &settings.turn_credential, &settings.turn_credential_file)?;
    let username = Some(settings.turn_username.as_str()).filter(|name| !name.is_empty());
    let wrong = |key: &str, error: BadIceServer| Contradiction(format!("{key}: {error}"));
    match (secret, username, credential) {
        (None, None, None) => Ok(None),
        (Some(secret), None, None) => {
            let secret = secret.parse().map_err(|error| wrong("turn_secret", error))?;
            Ok(Some(TurnCredentials::TimeLimited { secret, lifetime: settings.turn_lifetime.0 }))
        }
        (None, Some(username), Some(credential)) => Ok(Some(TurnCredentials::Fixed {
            username: username.parse().map_err(|error| wrong("turn_username", error))?,
            credential: credential.parse().map_err(|error| wrong("turn_credential", error))?,
        })),
        (Some(_), _, _) => {
            refuse("turn_secret and turn_username or turn_credential: drop one of the two ways".to_owned())
        }
        (None, _, _) => refuse("turn_username and turn_credential: one of the two is missing".to_owned()),
    }
}

/// The value of a setting, or what its file has.
fn hidden(key: &str, value: &HiddenText, file: &PathBuf) -> Result<Option<String>, Contradiction> {
    match (value.0.is_empty(), file == Path::new("")) {
        (true, true) => Ok(None),
        (false, true) => Ok(Some(value.0.clone())),
        (false, false) => refuse(format!("{key} and {key}_file: drop one of the two")),
        (true, false) => match std::fs::read_to_string(file) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) => refuse(format!("{key}_file: cannot read {}: {error}", file.display())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Settings)) -> Result<IceServers, String> {
        let mut settings = Settings { ice_server: vec!["turn:turn.example".parse().unwrap()], ..Settings::default() };
        change(&mut settings);
        ice_servers(&settings).map_err(|error| error.0)
    }

    // WHIP-22
    #[test]
    fn a_turn_server_has_one_way_to_show_that_one_may_use_it() {
        assert!(with(|_| ()).unwrap_err().starts_with("ice_server: turn:turn.example needs credentials"));
        assert!(with(|settings| settings.ice_server = vec!["stun:stun.example".parse().unwrap()]).is_ok());
        let limited = with(|settings| settings.turn_secret = "0123456789abcdef".parse().unwrap()).unwrap();
        assert!(matches!(limited.credentials, Some(TurnCredentials::TimeLimited { .. })));
        assert!(warnings(&limited, true).is_empty());
        let user = |settings: &mut Settings| settings.turn_username = "user".to_owned();
        assert!(with(user).unwrap_err().contains("one of the two is missing"));
        let fixed = |settings: &mut Settings| {
            user(settings);
            settings.turn_credential = "s3cret".parse().unwrap();
        };
        let servers = with(fixed).unwrap();
        assert!(matches!(servers.credentials, Some(TurnCredentials::Fixed { .. })));
        assert_eq!((warnings(&servers, true).len(), warnings(&servers, false).len()), (1, 0));
        let both = with(|settings| {
            fixed(settings);
            settings.turn_secret = "0123456789abcdef".parse().unwrap();
        });
        assert!(both.unwrap_err().starts_with("turn_secret and turn_username"));
        let unused = with(|settings| {
            settings.ice_server.clear();
            settings.turn_secret = "0123456789abcdef".parse().unwrap();
        });
        assert!(unused.unwrap_err().contains("no ice_server is a TURN server"));
    }

    // WHIP-25, OPS-10
    #[test]
    fn secrets_come_from_a_file_too_and_are_never_shown() {
        let path = std::env::temp_dir().join(format!("sluice-{}-turn-secret", std::process::id()));
        std::fs::write(&path, "hunter2hunter2hunter2\n").unwrap();
        let from_file = with(|settings| settings.turn_secret_file.clone_from(&path)).unwrap();
        let direct = with(|settings| settings.turn_secret = "hunter2hunter2hunter2".parse().unwrap()).unwrap();
        assert_eq!(from_file, direct);
        assert!(!format!("{from_file:?}").contains("hunter2"));
        let settings = Settings { turn_secret: "hunter2hunter2hunter2".parse().unwrap(), ..Settings::default() };
        assert!(!format!("{settings:?} {}", settings.to_toml()).contains("hunter2"));
        std::fs::write(&path, "hunter2\n").unwrap();
        let short = with(|settings| settings.turn_secret_file.clone_from(&path)).unwrap_err();
        assert!(short.starts_with("turn_secret: ") && !short.contains("hunter2"), "{short}");
        std::fs::remove_file(&path).unwrap();
        let missing = with(|settings| settings.turn_secret_file.clone_from(&path)).unwrap_err();
        assert!(missing.starts_with("turn_secret_file: cannot read"), "{missing}");
    }
}
