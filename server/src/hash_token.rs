//! `sluice hash-token`: makes the line of a token file that holds a token as its digest.

use std::ffi::OsString;
use std::io::BufRead;

use clap::Parser;
use clap::error::ErrorKind;
use openssl::base64::encode_block;
use openssl::rand::rand_bytes;
use signaling::{TokenError, hashed_line};

/// Makes a line for a token file, in which the token stands as its SHA-256.
///
/// Without --stdin the token is made here, from 256 random bits, and written to stderr; the line goes to stdout.
#[derive(Debug, Parser)]
#[command(name = "sluice hash-token", max_term_width = 110)]
struct HashToken {
    /// What the token is good for: `[NAME@][publish:|watch:]STREAM`, such as studio@publish:show, watch:live-* or *.
    right: String,
    /// Hash the first line of stdin. It must be long: whoever reads the file can try out what is guessable.
    #[arg(long)]
    stdin: bool,
}

/// Characters of the shortest token that may be hashed: of letters and digits they hold 95 bits.
const MIN_TOKEN: usize = 16;

/// What the command writes.
#[derive(Debug, PartialEq, Eq)]
pub struct Hashed {
    /// The line for the file.
    pub line: String,
    /// The token, if it was made here.
    pub token: Option<String>,
}

/// Why the command writes nothing.
#[derive(Debug, thiserror::Error)]
pub enum HashTokenError {
    /// The user asked for help.
    #[error("{0}")]
    Information(String),
    /// The arguments are wrong.
    #[error("{0}")]
    Arguments(String),
    /// stdin holds no line of text.
    #[error("cannot read a token from stdin: {0}")]
    Read(#[from] std::io::Error),
    /// The token can be guessed.
    #[error(
        "the token has fewer than {MIN_TOKEN} characters: whoever reads the file could find it by trying; without --stdin one \
         is made"
    )]
    Short,
    /// The right or the token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The random generator failed.
    #[error("the random generator failed: {0}")]
    Random(#[from] openssl::error::ErrorStack),
}

/// Runs the command. `args` begins with its name.
///
/// # Errors
///
/// [`HashTokenError`], whose text never holds the token.
pub fn run(args: impl IntoIterator<Item = OsString>, stdin: impl BufRead) -> Result<Hashed, HashTokenError> {
    let HashToken { right, stdin: from_stdin } =
        HashToken::try_parse_from(args).map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp => HashTokenError::Information(error.render().to_string()),
            _ => HashTokenError::Arguments(
                error.render().to_string().trim_start_matches("error: ").trim_end().to_owned(),
            ),
        })?;
    if !from_stdin {
        let mut bytes = [0; 32];
        rand_bytes(&mut bytes)?;
        let token = encode_block(&bytes).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned();
        return Ok(Hashed { line: hashed_line(&right, &token)?, token: Some(token) });
    }
    let token = stdin.lines().next().transpose()?.unwrap_or_default();
    let token = token.trim();
    if token.len() < MIN_TOKEN {
        return Err(HashTokenError::Short);
    }
    Ok(Hashed { line: hashed_line(&right, token)?, token: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(args: &[&str], stdin: &str) -> Result<Hashed, HashTokenError> {
        let args = std::iter::once("sluice hash-token").chain(args.iter().copied()).map(OsString::from);
        run(args, stdin.as_bytes())
    }

    // AUTH-04
    #[test]
    fn a_token_is_made_and_its_line_is_the_one_of_the_token_given_back() {
        let made = hash(&["studio@publish:show"], "").unwrap();
        let token = made.token.unwrap();
        assert_eq!(token.len(), 43, "256 bits");
        assert!(made.line.starts_with("studio@publish:show=sha256:") && !made.line.contains(&token), "{}", made.line);
        assert!(made.line.parse::<signaling::AccessToken>().is_ok());
        let again = hash(&["studio@publish:show", "--stdin"], &format!("{token}\nmore\n")).unwrap();
        assert_eq!(again, Hashed { line: made.line, token: None });
        assert_ne!(hash(&["*"], "").unwrap().token, Some(token));
    }

    #[test]
    fn what_a_file_could_not_hold_is_refused_without_the_token() {
        for (args, stdin) in [
            (&["show", "--stdin"][..], "hunter2hunter2\n"),
            (&["show", "--stdin"], ""),
            (&["show", "--stdin"], "hunter2 hunter2 hunter2\n"),
            (&["a b"], ""),
            (&[], ""),
        ] {
            let error = hash(args, stdin).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains("hunter2"), "{error}");
        }
        assert!(matches!(hash(&["--help"], ""), Err(HashTokenError::Information(_))));
    }
}
