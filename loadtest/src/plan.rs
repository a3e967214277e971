//! What a test is to do.

use std::time::Duration;

use media_core::media::Codec;
use serde::{Serialize, Serializer};

use crate::attack::AttackOptions;
use crate::client::{ClientOptions, PublisherOptions};
use crate::fleet::links::LinkClass;

/// Sockets of attackers beside their TCP connections.
const ATTACKERS: usize = 500;

/// How many clients do what, where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// WHIP endpoint; `{i}` stands for the publisher's number, from 0.
    pub whip: Option<String>,
    /// WHEP endpoint; `{i}` stands for the number of the stream that a viewer watches.
    pub whep: Option<String>,
    /// Bearer token of all requests.
    pub token: Option<String>,
    /// Number of publishers.
    pub publishers: usize,
    /// Number of viewers, dealt out to the streams in turn.
    pub viewers: usize,
    /// From the last join to the first leave.
    pub duration: Duration,
    /// Joins a second; all at once if `None`.
    pub rate: Option<f64>,
    /// What the publishers send.
    pub media: PublisherOptions,
    /// How all clients behave.
    pub client: ClientOptions,
    /// Viewers give transport-wide feedback, as browsers do.
    pub transport_cc: bool,
    /// Process of the server, if it runs on this machine.
    pub server_pid: Option<u32>,
    /// Threads of the viewers, at least 1; publishers have one of their own.
    pub threads: usize,
}

/// What happens in a test.
#[derive(Clone, Debug, PartialEq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Scenario {
    /// All join, all stay, all leave.
    Run {
        /// After the plan's duration it is measured once more, with so many datagrams of garbage a second to the server's
        /// media ports.
        garbage: Option<u32>,
        /// At last the publishers leave and return with this video codec, and it is measured for the plan's duration again.
        returns_with: Option<Codec>,
    },
    /// Viewers stand; then many more join at once, or at the plan's rate.
    Storm {
        /// Viewers that join.
        joins: usize,
        /// Measured before the storm, and after it.
        #[serde(serialize_with = "seconds")]
        calm: Duration,
        /// Each leaves with its first packet: what the storm does is then done by joins, not by more viewers.
        leave: bool,
    },
    /// Viewers stand; then others join whose paths carry only a part of the stream, and leave again. Without, with and again
    /// without them is measured for the plan's duration each.
    Narrow {
        /// Viewers on narrow paths.
        narrow: usize,
        /// The part of the first stream's bit rate that each of these paths carries, 0.0..=1.0.
        share: f64,
        /// Of 100 datagrams towards these viewers so many are lost besides.
        loss: f64,
    },
    /// More and more viewers, each step measured for the plan's duration, until the server no longer keeps up.
    Knee {
        /// Viewers more at each step.
        step: usize,
        /// The last step has no more viewers than that.
        max_viewers: usize,
        /// A step with a greater share of losses failed.
        max_loss: f64,
        /// A step with a higher 99th percentile of the latency failed, in ms.
        max_p99_ms: f64,
    },
    /// Viewers of a stream with layers stand on links that carry different rates.
    Layers(LayersOptions),
    /// Viewers and publishers come and go for the plan's duration, and then nothing may be left of them.
    Soak(SoakOptions),
    /// Viewers stand, and are measured for the plan's duration; then hostile inputs have their turns beside them.
    Attack(AttackOptions),
}

pub(crate) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// What happens in a test of layers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayersOptions {
    /// The classes of links, with their viewers.
    pub links: Vec<LinkClass>,
    /// Of 100 datagrams towards the viewers so many are lost besides.
    pub loss: f64,
    /// What a viewer sees is judged from here on, counted from its POST.
    #[serde(serialize_with = "seconds")]
    pub settle: Duration,
    /// Every viewer is to be at the highest layer that fits its link, or above, for this part of the time.
    pub least_share: f64,
    /// First as many viewers on perfect links watch the same stream without layers, and then with them: the publisher of the second
    /// stream sends the first one's top layer alone.
    pub compare: bool,
}

/// What happens in a soak.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SoakOptions {
    /// Viewers that leave, and others that join, a second.
    pub churn: f64,
    /// From one restart of a publisher to the next.
    #[serde(serialize_with = "optional_seconds")]
    pub restart: Option<Duration>,
    /// From the last leave to the count of what is left.
    #[serde(serialize_with = "seconds")]
    pub settle: Duration,
    /// Where the server lists its live sessions as JSON.
    pub sessions_url: Option<String>,
    /// Of those that leave this share vanishes without a word, 0.0..=1.0.
    pub vanish: f64,
    /// Of those that join this share is on impaired paths, 0.0..=1.0.
    pub impaired: f64,
    /// Attacks that have their turns all the time; its admin listener is scraped once a second.
    pub attack: Option<AttackOptions>,
    /// The server's memory is to be flat from here on, from the begin of the churn; a soak that is shorter is not judged so.
    #[serde(serialize_with = "seconds")]
    pub flat_after: Duration,
}

impl Default for SoakOptions {
    fn default() -> SoakOptions {
        SoakOptions {
            churn: 5.0,
            restart: None,
            settle: Duration::from_secs(5),
            sessions_url: None,
            vanish: 0.0,
            impaired: 0.0,
            attack: None,
            flat_after: Duration::from_secs(600),
        }
    }
}

fn optional_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

impl Scenario {
    /// Viewers join while others are measured.
    pub(crate) fn has_joins(&self) -> bool {
        matches!(self, Scenario::Storm { .. } | Scenario::Attack(_))
    }

    /// The standing viewers' latency is compared between short phases.
    pub(crate) fn compares(&self) -> bool {
        matches!(self, Scenario::Storm { .. } | Scenario::Narrow { .. })
    }
}

/// A whole test.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Its clients.
    pub plan: Plan,
    /// What publishers send if not all send the plan's media: dealt out in turn.
    pub mix: Vec<PublisherOptions>,
    /// What happens.
    pub scenario: Scenario,
}

impl Campaign {
    /// What publisher `index` sends.
    pub fn media(&self, index: usize) -> &PublisherOptions {
        match self.mix.len() {
            0 => &self.plan.media,
            kinds => &self.mix[index % kinds],
        }
    }

    /// The most clients that are there at once.
    pub fn most_clients(&self) -> usize {
        let more = match self.scenario {
            Scenario::Run { .. } => 0,
            Scenario::Storm { joins, .. } => joins,
            // Each has a flow of the relay's with two sockets.
            Scenario::Narrow { narrow, .. } => 2 * narrow,
            // Each has a flow of the relay's with two sockets.
            Scenario::Layers(ref options) => {
                let linked: usize = options.links.iter().map(|class| class.viewers).sum();
                3 * linked
            }
            Scenario::Knee { max_viewers, .. } => max_viewers.saturating_sub(self.plan.viewers),
            // Those that leave overlap with those that come.
            Scenario::Soak(ref options) => {
                // An impaired viewer has a flow of the relay's with two sockets.
                let attackers = options.attack.as_ref().map_or(0, |attack| attack.connections + ATTACKERS);
                2 * self.plan.viewers + attackers
            }
            Scenario::Attack(ref options) => options.connections + ATTACKERS,
        };
        self.plan.publishers + self.plan.viewers + more
    }
}

/// What a test is doing: so many of so many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Publishers, viewers, seconds.
    pub what: &'static str,
    /// Done.
    pub done: u64,
    /// All.
    pub all: u64,
}

/// Why there was no test.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan makes no sense.
    #[error("{0}")]
    Plan(&'static str),
    /// The HTTP client, the certificate or a thread could not be had.
    #[error("cannot start: {0}")]
    Start(String),
}
