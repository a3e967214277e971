//! What attacks cost whom.

use serde::Serialize;

use super::outcome::optional;
use crate::attack::AttackCounts;
use crate::measure::figures::Phase;

/// What the server needed in an attack.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ServerCost {
    /// CPU time by time: 1.0 is all of one core.
    pub cores: f64,
    /// Resident memory at the end, in bytes.
    pub resident_bytes: u64,
    /// What that is more than before, in bytes.
    pub grown_bytes: i64,
}

/// One attack, and what it cost whom.
#[derive(Clone, Debug, Serialize)]
pub struct AttackRow {
    /// Its name.
    pub attack: String,
    /// Why it, or a part of it, did not take place: an option that it needs was not given.
    pub not_done: Option<String>,
    /// Why it, or a part of it, did not take place: its attackers could not join, as everybody may.
    pub failed: Option<String>,
    /// Its length, in seconds; 0 if it did not take place.
    pub seconds: f64,
    /// What was sent and what came back.
    pub counts: AttackCounts,
    /// Packets of the publishers that honest viewers never got, until a second after the attack, beyond what the quiet phase
    /// lost in so much time.
    pub packets_lost: u64,
    /// Honest sessions that ended, or got no media any more.
    pub sessions_lost: u64,
    /// Median of the honest viewers' one-way latency, in ms.
    pub p50_ms: Option<f64>,
    /// 99 of 100 are below.
    pub p99_ms: Option<f64>,
    /// That by the quiet one.
    pub p99_ratio: Option<f64>,
    /// An honest viewer that joined in the attack: from its POST to its first packet, in ms.
    pub newcomer_ms: Option<f64>,
    /// Why an honest viewer or publisher could not join in the attack.
    pub refused: Vec<String>,
    /// What the server needed, if its process or its metrics could be read.
    pub server: Option<ServerCost>,
    /// Bounds that did not hold.
    pub broken: Vec<String>,
}

/// The quiet phase, and all attacks.
#[derive(Clone, Debug, Serialize)]
pub struct AttackFigures {
    /// Packets that honest viewers never got in the quiet phase.
    pub quiet_lost: u64,
    /// Median of their one-way latency in it, in ms.
    pub quiet_p50_ms: Option<f64>,
    /// 99 of 100 were below.
    pub quiet_p99_ms: Option<f64>,
    /// How many times of that is allowed in an attack.
    pub max_p99_ratio: Option<f64>,
    /// The attacks in order.
    pub attacks: Vec<AttackRow>,
}

impl AttackFigures {
    pub(crate) fn new(quiet: Option<&Phase>, quiet_lost: u64, max_p99_ratio: Option<f64>) -> AttackFigures {
        let latency = quiet.and_then(|phase| phase.latency_ms);
        AttackFigures {
            quiet_lost,
            quiet_p50_ms: latency.map(|latency| latency.p50),
            quiet_p99_ms: latency.map(|latency| latency.p99),
            max_p99_ratio,
            attacks: Vec::new(),
        }
    }

    /// Judges an attack and keeps it.
    pub(crate) fn push(&mut self, mut row: AttackRow) {
        row.p99_ratio = row.p99_ms.zip(self.quiet_p99_ms.filter(|p99| *p99 > 0.0)).map(|(p99, quiet)| p99 / quiet);
        row.broken = broken(&row, self.max_p99_ratio);
        self.attacks.push(row);
    }

    /// All bounds that did not hold, each with the attack's name.
    pub fn broken(&self) -> Vec<String> {
        let named = |row: &AttackRow| {
            let name = row.attack.clone();
            row.broken.clone().into_iter().map(move |bound| format!("{name}: {bound}"))
        };
        let nothing = self.attacks.iter().all(|row| row.seconds == 0.0);
        let nothing = nothing.then(|| "no attack was carried out".to_owned());
        self.attacks.iter().flat_map(named).chain(nothing).collect()
    }

    /// What was found, for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "quiet: {} packets lost, latency p50 {} ms, p99 {} ms; the attacks' losses are those beyond that",
            self.quiet_lost,
            optional(self.quiet_p50_ms, 2),
            optional(self.quiet_p99_ms, 2),
        )];
        for row in &self.attacks {
            lines.extend(row.not_done.iter().map(|reason| format!("{}: not carried out: {reason}", row.attack)));
            if !row.counts.answers.is_empty() {
                let answers: Vec<String> =
                    row.counts.answers.iter().map(|(status, count)| format!("{status} {count} times")).collect();
                lines.push(format!("{}: answers {}", row.attack, answers.join(", ")));
            }
        }
        lines.extend(self.broken().into_iter().map(|bound| format!("BROKEN: {bound}")));
        lines
    }
}

/// The bounds that did not hold.
fn broken(row: &AttackRow, max_p99_ratio: Option<f64>) -> Vec<String> {
    let mut broken: Vec<String> = Vec::new();
    broken.extend(row.failed.iter().map(|reason| format!("its attackers could not join: {reason}")));
    if row.sessions_lost > 0 {
        broken.push(format!("{} honest sessions were lost", row.sessions_lost));
    }
    if row.packets_lost > 0 {
        broken.push(format!("honest viewers lost {} packets", row.packets_lost));
    }
    let amplification = row.counts.amplification;
    if amplification > 1.0 {
        broken.push(format!("an address that proved nothing got {amplification:.2} times what it sent"));
    }
    broken.extend(row.refused.iter().map(|reason| format!("an honest newcomer could not join: {reason}")));
    if let Some((ratio, most)) = row.p99_ratio.zip(max_p99_ratio)
        && ratio > most
    {
        broken.push(format!("the latency's p99 was {ratio:.2} times the quiet one"));
    }
    broken
}

/// The columns of the table of attacks.
pub(super) const ATTACK_HEADER: [&str; 15] = [
    "attack",
    "s",
    "datagrams/s",
    "Mbit/s",
    "connections",
    "requests",
    "back kB",
    "ampl.",
    "lost",
    "sessions lost",
    "p50 ms",
    "p99 ms",
    "join ms",
    "server cores",
    "MB more",
];

/// The values of an attack, in the order of [`ATTACK_HEADER`].
pub(super) fn attack_row(row: &AttackRow) -> Vec<String> {
    let counts = &row.counts;
    let seconds = row.seconds.max(0.001);
    vec![
        row.attack.clone(),
        format!("{:.1}", row.seconds),
        format!("{:.0}", counts.datagrams as f64 / seconds),
        format!("{:.1}", counts.datagram_bytes as f64 * 8e-6 / seconds),
        counts.connections.to_string(),
        counts.requests.to_string(),
        format!("{:.1}", counts.returned_bytes as f64 / 1000.0),
        format!("{:.2}", counts.amplification),
        row.packets_lost.to_string(),
        row.sessions_lost.to_string(),
        optional(row.p50_ms, 2),
        optional(row.p99_ms, 2),
        optional(row.newcomer_ms, 0),
        optional(row.server.map(|server| server.cores), 2),
        optional(row.server.map(|server| server.grown_bytes as f64 / 1e6), 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> AttackRow {
        AttackRow {
            attack: "noise".into(),
            not_done: None,
            failed: None,
            seconds: 1.0,
            counts: AttackCounts::default(),
            packets_lost: 0,
            sessions_lost: 0,
            p50_ms: None,
            p99_ms: Some(9.0),
            p99_ratio: None,
            newcomer_ms: None,
            refused: Vec::new(),
            server: None,
            broken: Vec::new(),
        }
    }

    #[test]
    fn each_bound_can_break() {
        let mut figures = AttackFigures::new(None, 0, Some(2.0));
        figures.quiet_p99_ms = Some(5.0);
        figures.push(row());
        assert_eq!((figures.broken(), figures.attacks[0].p99_ratio), (Vec::new(), Some(1.8)));
        let counts = AttackCounts { amplification: 1.01, ..AttackCounts::default() };
        figures.push(AttackRow { packets_lost: 1, sessions_lost: 2, counts, p99_ms: Some(11.0), ..row() });
        figures.push(AttackRow { refused: vec!["503".into()], ..row() });
        let broken = figures.broken();
        for words in ["2 honest sessions", "lost 1 packets", "got 1.01 times", "p99 was 2.20 times", "join: 503"] {
            assert!(broken.iter().any(|bound| bound.contains(words)), "{words}: {broken:?}");
        }
        assert_eq!(broken.len(), 5);
        figures.attacks.clear();
        figures.push(AttackRow { not_done: Some("it needs --admin".into()), seconds: 0.0, ..row() });
        assert_eq!(figures.broken(), ["no attack was carried out"]);
        figures.push(row());
        assert_eq!(figures.broken(), [""; 0], "what an option would have added is told, and breaks nothing");
        figures.push(AttackRow { failed: Some("503".into()), ..row() });
        assert_eq!(figures.broken(), ["noise: its attackers could not join: 503"]);
        figures.max_p99_ratio = None;
        assert_eq!(super::broken(&AttackRow { p99_ratio: Some(9.0), ..row() }, None), [""; 0]);
    }
}
