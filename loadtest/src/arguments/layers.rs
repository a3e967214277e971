//! `sluice-loadtest layers`.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use loadtest::LinkClass;
use loadtest::client::PublisherOptions;
use loadtest::run::{LayersOptions, RunError, Scenario};
use loadtest::seconds::seconds;

use super::{Common, Planned};

#[derive(Args)]
pub(crate) struct LayersArgs {
    /// Links as RATE:VIEWERS, in kbit/s of IPv4 packets each; rate 0 for perfect ones
    #[arg(long, default_value = "3000:34,600:33,250:33", value_delimiter = ',', value_name = "KBIT:VIEWERS")]
    links: Vec<LinkArgument>,
    /// Of the datagrams towards the viewers this part is lost besides, in %
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    loss: f64,
    /// A viewer is judged so many seconds after its POST
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    settle: Duration,
    /// Seconds to measure after that
    #[arg(long, default_value = "30", value_parser = seconds)]
    seconds: Duration,
    /// Every viewer is to be at the highest layer that fits into its link, or above, for this part of the time, in %
    #[arg(long, default_value_t = 90.0, value_name = "PERCENT")]
    least_share: f64,
    /// First as many viewers on perfect links watch the same stream without layers, and then with them
    #[arg(long)]
    compare: bool,
    /// Joins a second; all at once if not given
    #[arg(long)]
    rate: Option<f64>,
    #[command(flatten)]
    common: Common,
}

/// A class of links on the command line.
#[derive(Clone, Copy, Debug)]
struct LinkArgument(LinkClass);

impl FromStr for LinkArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<LinkArgument, String> {
        let read = || {
            let (rate, viewers) = text.split_once(':')?;
            let (rate, viewers): (f64, usize) = (rate.parse().ok()?, viewers.parse().ok()?);
            ((0.0..=1e6).contains(&rate) && viewers > 0).then_some((rate, viewers))
        };
        let (kbit_per_second, viewers) = read().ok_or("such as 600:33, in kbit/s and viewers")?;
        Ok(LinkArgument(LinkClass { kbit_per_second, viewers }))
    }
}

impl LayersArgs {
    pub(crate) fn campaign(self) -> Planned {
        let LayersArgs { links, loss, settle, seconds, least_share, compare, rate, mut common } = self;
        if !(0.0..=100.0).contains(&loss) || !(0.0..=100.0).contains(&least_share) {
            return Err(RunError::Plan("--loss and --least-share are parts of 100"));
        }
        let links: Vec<LinkClass> = links.into_iter().map(|link| link.0).collect();
        let viewers = links.iter().map(|class| class.viewers).sum();
        common.target.publishers = if compare { 2 } else { 1 };
        let options = LayersOptions { links, loss, settle, least_share: least_share / 100.0, compare };
        let (mut campaign, output) = common.watched(viewers, seconds, rate, Scenario::Layers(options))?;
        let layered = campaign.media(0).clone();
        if layered.simulcast == 0 && layered.svc.is_none() {
            return Err(RunError::Plan("this test needs --simulcast or --svc"));
        }
        let single = PublisherOptions { simulcast: 0, svc: None, ..layered.clone() };
        campaign.mix = vec![layered, single];
        Ok((campaign, output))
    }
}
