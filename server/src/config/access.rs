//! From settings to where rights come from: tokens and files read, and keys.

use std::path::Path;

use signaling::{JwksUrl, JwtConfig, KeySet, Tokens, WebhookConfig, WebhookSecret};

use super::resolve::{Contradiction, refuse};
use super::settings::Settings;
use super::values::AccessToken;

/// Where rights come from.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) tokens: Tokens,
    pub(super) jwt: Option<JwtConfig>,
    pub(super) webhook: Option<WebhookConfig>,
}

impl Sources {
    /// There is none.
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.jwt.is_none() && self.webhook.is_none()
    }
}

/// The sources of the settings, with the tokens of all places.
pub(super) fn sources(settings: &Settings, tokens: &[AccessToken]) -> Result<Sources, Contradiction> {
    let mut checked = Tokens::default();
    for AccessToken(token) in tokens {
        let streams = token.streams();
        if streams.has_slash() && !settings.slash_names {
            return refuse(format!(
                "token: no stream can have the name {streams}: set slash_names to allow `/` in names"
            ));
        }
        checked.push(token.clone());
    }
    Ok(Sources { tokens: checked, jwt: jwt(settings)?, webhook: webhook(settings)? })
}

/// What is allowed and deserves a word.
pub(super) fn warnings(settings: &Settings, tokens: &[AccessToken]) -> Vec<String> {
    let mut warnings = Vec::new();
    if !settings.protect_viewers && tokens.iter().any(|token| token.0.only_watches()) {
        warnings.push("tokens for watching change nothing: protect_viewers is off, so everybody may watch".to_owned());
    }
    for (key, url, what) in [
        ("jwt_jwks_url", &settings.jwt_jwks_url, "whoever is on the way can put keys of their own there"),
        ("webhook_url", &settings.webhook_url, "whoever is on the way can read tokens and give rights"),
    ] {
        if url.is_clear_text() {
            warnings.push(format!("{key} is http in clear text: {what}"));
        }
    }
    warnings
}

fn jwt(settings: &Settings) -> Result<Option<JwtConfig>, Contradiction> {
    let path = &settings.jwt_key_file;
    let keys = match path.as_os_str().is_empty() {
        true => KeySet::default(),
        false => {
            let bytes = read("jwt_key_file", path)?;
            KeySet::from_file(&bytes)
                .map_err(|error| Contradiction(format!("jwt_key_file: {}: {error}", path.display())))?
        }
    };
    let remote = settings.jwt_jwks_url.0.clone().map(|url| JwksUrl { url, keep: settings.jwt_keys_keep.0 });
    let is_used = !keys.is_empty() || remote.is_some();
    let narrows = !settings.jwt_issuer.is_empty() || !settings.jwt_audience.is_empty();
    if narrows && !is_used {
        return refuse("jwt_issuer, jwt_audience: no keys are configured: add jwt_key_file or jwt_jwks_url".to_owned());
    }
    Ok(is_used.then(|| JwtConfig {
        keys,
        remote,
        issuers: settings.jwt_issuer.clone(),
        audiences: settings.jwt_audience.clone(),
        require_exp: settings.jwt_require_exp,
    }))
}

fn webhook(settings: &Settings) -> Result<Option<WebhookConfig>, Contradiction> {
    let path = &settings.webhook_secret_file;
    let secret = match path.as_os_str().is_empty() {
        true => None,
        false => {
            let text = String::from_utf8(read("webhook_secret_file", path)?).ok();
            let secret = text.and_then(|text| WebhookSecret::read(&text));
            let wrong =
                || format!("webhook_secret_file: {}: neither whsec_ and Base64, nor 24 bytes of text", path.display());
            Some(secret.ok_or_else(|| Contradiction(wrong()))?)
        }
    };
    if settings.webhook_url.0.is_none() && secret.is_some() {
        return refuse("webhook_secret_file: no webhook_url is configured".to_owned());
    }
    Ok(settings.webhook_url.0.clone().map(|url| WebhookConfig {
        url,
        secret,
        timeout: settings.webhook_timeout.0,
        cache: settings.webhook_cache.0,
        away: settings.webhook_away.0,
    }))
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, Contradiction> {
    std::fs::read(path).map_err(|error| Contradiction(format!("{key}: cannot read {}: {error}", path.display())))
}

/// The tokens of a file, one a line.
pub(super) fn read_token_file(path: &Path) -> Result<Vec<AccessToken>, Contradiction> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Contradiction(format!("token_file: cannot read {}: {error}", path.display())))?;
    parse_token_file(path, &text)
}

/// The tokens of a file with this text.
pub(super) fn parse_token_file(path: &Path, text: &str) -> Result<Vec<AccessToken>, Contradiction> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            line.parse().map_err(|error| {
                Contradiction(format!(
                    "token_file: {}, line {number}: {error}\n  allowed: [NAME@][publish:|watch:]STREAM=TOKEN, one a line",
                    path.display()
                ))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::values::ServiceUrl;
    use super::*;

    fn all(settings: &Settings) -> Result<Sources, Contradiction> {
        let mut tokens = settings.token.clone();
        if !settings.token_file.as_os_str().is_empty() {
            tokens.extend(read_token_file(&settings.token_file)?);
        }
        sources(settings, &tokens)
    }

    fn refused(settings: &Settings) -> String {
        all(settings).unwrap_err().0
    }

    /// A file with this text, as long as `run` takes.
    fn with_file<T>(name: &str, text: &str, run: impl FnOnce(&Path) -> T) -> T {
        let path = std::env::temp_dir().join(format!("sluice-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let result = run(&path);
        std::fs::remove_file(path).unwrap();
        result
    }

    fn url(text: &str) -> ServiceUrl {
        text.parse().unwrap()
    }

    #[test]
    fn token_files_have_comments_and_their_errors_name_the_line_without_the_secret() {
        let path = std::env::temp_dir().join(format!("sluice-{}-tokens", std::process::id()));
        std::fs::write(&path, "# ours\n\ncam=abc\n *=def \n").unwrap();
        let settings = Settings { token_file: path.clone(), ..Settings::default() };
        let tokens = all(&settings).unwrap().tokens;
        assert!(tokens.names("cam"));
        let mut expected = Tokens::default();
        expected.add("cam", "abc").unwrap();
        expected.add("*", "def").unwrap();
        assert_eq!(tokens, expected);
        std::fs::write(&path, "cam=abc\nhunter2\n").unwrap();
        let message = refused(&settings);
        assert!(message.contains("line 2") && !message.contains("hunter2"), "{message}");
        std::fs::remove_file(&path).unwrap();
        assert!(refused(&settings).starts_with("token_file: cannot read"));
    }

    // F-22
    #[test]
    fn a_token_for_a_name_with_a_slash_wants_slash_names() {
        let mut settings = Settings { token: vec!["live/cam1=x".parse().unwrap()], ..Settings::default() };
        assert!(refused(&settings).contains("slash_names"));
        settings.slash_names = true;
        assert!(all(&settings).unwrap().tokens.names("live/cam1"));
        assert!("live//cam1=x".parse::<AccessToken>().is_err());
    }

    // AUTH-04
    #[test]
    fn keys_and_secrets_are_read_from_files_and_never_shown() {
        let secret = "hunter2-hunter2-hunter2-hunter2-hunter2";
        with_file("secret", secret, |path| {
            let settings = Settings {
                jwt_key_file: path.to_owned(),
                webhook_secret_file: path.to_owned(),
                webhook_url: url("http://127.0.0.1:9/"),
                ..Settings::default()
            };
            let sources = all(&settings).unwrap();
            assert!(
                sources.webhook.as_ref().unwrap().secret.is_some() && !sources.jwt.as_ref().unwrap().keys.is_empty()
            );
            assert!(!format!("{sources:?}").contains("hunter2"), "{sources:?}");
        });
        with_file("short", "hunter2", |path| {
            let settings = Settings { jwt_key_file: path.to_owned(), ..Settings::default() };
            let message = refused(&settings);
            assert!(message.starts_with("jwt_key_file: ") && !message.contains("hunter2"), "{message}");
            let webhook_url = url("http://127.0.0.1:9/");
            let settings = Settings { webhook_secret_file: path.to_owned(), webhook_url, ..Settings::default() };
            let message = refused(&settings);
            assert!(message.starts_with("webhook_secret_file: ") && !message.contains("hunter2"), "{message}");
        });
        let settings = Settings { jwt_key_file: "/nonexistent".into(), ..Settings::default() };
        assert!(refused(&settings).starts_with("jwt_key_file: cannot read"));
    }

    #[test]
    fn settings_without_what_they_are_for_are_refused() {
        assert!(
            refused(&Settings { jwt_issuer: vec!["me".to_owned()], ..Settings::default() }).contains("jwt_key_file")
        );
        with_file("alone", "0123456789abcdef01234567", |path| {
            let settings = Settings { webhook_secret_file: path.to_owned(), ..Settings::default() };
            assert!(refused(&settings).contains("no webhook_url"));
        });
    }

    #[test]
    fn what_an_eavesdropper_could_use_deserves_a_word() {
        let settings = Settings {
            jwt_jwks_url: url("http://id.example/jwks"),
            webhook_url: url("http://hooks.example/"),
            ..Settings::default()
        };
        let watch = ["watch:show=token".parse().unwrap()];
        let told = warnings(&settings, &watch);
        assert_eq!(told.len(), 3, "{told:?}");
        let settings = Settings {
            jwt_jwks_url: url("https://id.example/jwks"),
            webhook_url: url("http://127.0.0.1:9/"),
            protect_viewers: true,
            ..Settings::default()
        };
        assert_eq!(warnings(&settings, &watch), [] as [String; 0]);
    }
}
