//! The arguments of `conformance`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use loadtest::conformance::{self, Level, Options, RowResult};

#[derive(Args)]
pub(crate) struct ConformanceArgs {
    /// WHIP endpoint; {i} stands for a number, so that each row has a stream of its own
    #[arg(long, value_name = "URL")]
    whip: Option<String>,
    /// WHEP endpoint; with --whip the stream is published by this program, else by somebody else
    #[arg(long, value_name = "URL")]
    whep: Option<String>,
    /// Bearer token
    #[arg(long, env = "SLUICE_LOADTEST_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Take any TLS certificate
    #[arg(long)]
    insecure: bool,
    /// Only rows whose id begins with one of these, such as WHIP,TRK-1
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    only: Vec<String>,
    /// No rows whose id begins with one of these
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    skip: Vec<String>,
    /// Only rows of this level or a stronger one
    #[arg(long, value_enum, default_value = "MAY", ignore_case = true)]
    level: Level,
    /// So many rows at a time, if the URLs have {i}
    #[arg(long, default_value_t = 1, value_name = "ROWS", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Write the report as JSON to this file, or to standard output, instead of the lines, if it is "-"
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as JUnit XML to this file
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print all rows with their levels and sources, and check nothing
    #[arg(long)]
    list: bool,
}

impl ConformanceArgs {
    pub(crate) fn carry_out(self) -> Result<ExitCode, String> {
        if self.list {
            for row in conformance::rows() {
                println!("{:<9} {:<6} {}: {}", row.id, row.level, row.from, row.text);
            }
            return Ok(ExitCode::SUCCESS);
        }
        let options = Options {
            whip: self.whip,
            whep: self.whep,
            token: self.token,
            insecure: self.insecure,
            only: self.only,
            skip: self.skip,
            level: self.level,
            jobs: self.jobs.into(),
        };
        let to_stdout = self.json.as_ref().is_some_and(|file| file.as_os_str() == "-");
        let show = |row: &RowResult| {
            if !to_stdout {
                println!("{}", row.to_line());
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let report = runtime.map_err(|error| error.to_string())?.block_on(conformance::run(options, show))?;
        // A report holds only numbers, strings and lists, which JSON can say.
        let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        let write = |file: &PathBuf, text: &str| {
            std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
        };
        match &self.json {
            _ if to_stdout => println!("{json}"),
            Some(file) => write(file, &(json + "\n"))?,
            None => {}
        }
        if let Some(file) = &self.junit {
            write(file, &report.to_junit())?;
        }
        if !to_stdout {
            println!("{}", report.summary());
        }
        Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}
