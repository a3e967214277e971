//! The arguments of `soak`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use loadtest::run::{Attack, AttackOptions, RunError, Scenario, SoakOptions};
use loadtest::seconds::seconds;

use super::{Common, Planned};

#[derive(Args)]
pub(crate) struct SoakArgs {
    /// Viewers at any time
    #[arg(long, default_value_t = 20)]
    viewers: usize,
    /// Seconds of coming and going
    #[arg(long, default_value = "60", value_parser = seconds)]
    seconds: Duration,
    /// Viewers that leave, and others that join, a second
    #[arg(long, default_value_t = 5.0)]
    churn: f64,
    /// Seconds from one restart of a publisher to the next; 0 for none
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    restart: Duration,
    /// Seconds that the server has to clean up before what is left is counted
    #[arg(long, default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    settle: Duration,
    /// Where the server lists its live sessions as JSON; of Sluice http://ADMIN/api/v1/sessions?state=live
    #[arg(long, value_name = "URL")]
    sessions_url: Option<String>,
    /// Of the viewers that leave so many vanish without a word, in %
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    vanish: f64,
    /// Of the viewers that join so many are on paths that carry 70 % of the stream and lose 2 %, in %
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    impaired: f64,
    /// Attacks that have their turns all the time, as of `attack`; "all" for all of them
    #[arg(long, value_delimiter = ',', value_name = "ATTACKS")]
    attacks: Vec<String>,
    /// Datagrams a second of attacks
    #[arg(long, default_value_t = 2000, value_name = "DATAGRAMS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    datagrams: u32,
    /// Connections or requests a second of attacks
    #[arg(long, default_value_t = 20, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    requests: u32,
    /// Where the server's admin listener is; with attacks it is scraped once a second
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// The server's memory is to be flat, within 2 %, after so many seconds
    #[arg(long, default_value = "600", value_parser = seconds, value_name = "SECONDS")]
    flat_after: Duration,
    /// The target belongs to you; without it nothing but this machine's loopback is attacked
    #[arg(long)]
    i_own_this_target: bool,
    #[command(flatten)]
    common: Common,
}

impl SoakArgs {
    pub(crate) fn campaign(self) -> Planned {
        if self.churn.is_nan() || self.churn <= 0.0 {
            return Err(RunError::Plan("--churn must be above 0"));
        }
        let shares = [self.vanish, self.impaired].map(|percent| percent / 100.0);
        if !shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            return Err(RunError::Plan("--vanish and --impaired are parts of 100"));
        }
        let all = AttackOptions::default();
        let named = |name: &String| {
            Attack::from_str(name, true).map_err(|_| RunError::Plan("--attacks: there is no such attack"))
        };
        let attacks = match &self.attacks[..] {
            [all_of_them] if all_of_them == "all" => all.attacks.clone(),
            names => names.iter().map(named).collect::<Result<_, _>>()?,
        };
        let attack = (!attacks.is_empty()).then_some(AttackOptions {
            attacks,
            datagrams: self.datagrams,
            requests: self.requests,
            connections: 500,
            admin: self.admin,
            owned: self.i_own_this_target,
            ..all
        });
        let scenario = Scenario::Soak(SoakOptions {
            churn: self.churn,
            restart: (!self.restart.is_zero()).then_some(self.restart),
            settle: self.settle,
            sessions_url: self.sessions_url,
            vanish: shares[0],
            impaired: shares[1],
            attack,
            flat_after: self.flat_after,
        });
        self.common.watched(self.viewers, self.seconds, None, scenario)
    }
}
