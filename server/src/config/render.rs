//! Writes the configuration: the reference file, the table for people, and what counts right now.

use std::fmt::Write;

use super::load::Loaded;
use super::settings::{SETTINGS, Settings, plain};

/// The file `deploy/sluice.toml`: every key with its default and a comment.
pub fn reference() -> String {
    let values = Settings::default().to_toml();
    let mut text = String::from(
        "# Every setting of Sluice with its default. A copy of this file changes nothing until a value in it changes.\n\
         # Flags (--http-listen) and environment variables (SLUICE_HTTP_LISTEN) win over this file.\n",
    );
    let mut heading = "";
    for info in SETTINGS {
        if heading != info.heading {
            heading = info.heading;
            let _ = write!(text, "\n# {heading}\n# {}\n", "-".repeat(heading.len()));
        }
        text.push('\n');
        for line in wrap(info.help.trim(), 110) {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "# Allowed: {}.", info.allowed);
        let _ = writeln!(text, "{} = {}", info.key, values[info.key]);
    }
    text
}

/// The file `deploy/configuration.md`.
pub fn document() -> String {
    let mut text = String::from(
        "# Settings of Sluice\n\n\
         A flag wins over the environment, the environment over the file (`--config FILE` or `SLUICE_CONFIG`), the file over \
         the default.\nAn unknown key, flag or `SLUICE_…` variable and a bad value stop the start with exit code 2.\n\
         `sluice --check-config` prints what counts and where each value comes from.\n\n",
    );
    text.push_str(&table());
    text
}

/// The table of all settings in Markdown.
fn table() -> String {
    let values = Settings::default().to_toml();
    let mut text = String::from("| Flag | Variable | Key | Default | What it does |\n|---|---|---|---|---|\n");
    for info in SETTINGS {
        let default = match plain(&values[info.key]).as_str() {
            "none" => "none".to_owned(),
            value => format!("`{value}`"),
        };
        let help = info.help.trim().replace('|', "\\|");
        let _ = writeln!(text, "| `{}` | `{}` | `{}` | {default} | {help} |", info.flag(), info.env, info.key);
    }
    text
}

/// What counts, as a TOML file whose comments name the source of each value. Tokens are redacted.
pub fn effective(loaded: &Loaded) -> String {
    let values = loaded.settings.to_toml();
    let mut text = String::new();
    if let Some(file) = &loaded.file {
        let _ = writeln!(text, "# file: {}", file.display());
    }
    for info in SETTINGS {
        let line = format!("{} = {}", info.key, values[info.key]);
        let _ = writeln!(text, "{line:<48} # {}", loaded.source(info.key));
    }
    text
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
