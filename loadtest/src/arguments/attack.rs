//! The arguments of `attack`.

use std::time::Duration;

use clap::Args;
use loadtest::run::{Attack, AttackOptions, Scenario};
use loadtest::seconds::seconds;

use super::{Common, Planned};

#[derive(Args)]
pub(crate) struct AttackArgs {
    /// Honest viewers, who stand all the time
    #[arg(long, default_value_t = 100)]
    viewers: usize,
    /// Seconds of each attack
    #[arg(long, default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// Seconds of the quiet phase before the first attack
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    quiet: Duration,
    /// Joins of the honest viewers a second; all at once if not given
    #[arg(long)]
    rate: Option<f64>,
    /// Only these attacks, in this order; all if not given
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ATTACKS")]
    only: Vec<Attack>,
    /// All attacks at once, which share the rates, instead of one after the other
    #[arg(long)]
    together: bool,
    /// Datagrams a second
    #[arg(long, default_value_t = 10_000, value_name = "DATAGRAMS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    datagrams: u32,
    /// Connections or requests a second
    #[arg(long, default_value_t = 200, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    requests: u32,
    /// TCP connections that attackers hold at a time at most
    #[arg(long, default_value_t = 2000)]
    connections: usize,
    /// Where the server's admin listener is: a target too, and its metrics tell CPU time and memory where there is no
    /// --server-pid
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// The honest viewers' p99 of the latency may be at most so many times that of the quiet phase
    #[arg(long, value_name = "TIMES")]
    max_p99_ratio: Option<f64>,
    /// The target belongs to you; without it nothing but this machine's loopback is attacked
    #[arg(long)]
    i_own_this_target: bool,
    #[command(flatten)]
    common: Common,
}

impl AttackArgs {
    pub(crate) fn campaign(self) -> Planned {
        let all = AttackOptions::default();
        let options = AttackOptions {
            attacks: if self.only.is_empty() { all.attacks } else { self.only },
            together: self.together,
            datagrams: self.datagrams,
            requests: self.requests,
            connections: self.connections,
            each: self.seconds,
            admin: self.admin,
            owned: self.i_own_this_target,
            max_p99_ratio: self.max_p99_ratio,
        };
        self.common.watched(self.viewers, self.quiet, self.rate, Scenario::Attack(options))
    }
}
