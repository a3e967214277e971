//! What an attack sent, and what came back.

use std::collections::BTreeMap;

use serde::Serialize;

/// What an attack sent, and what came back to its addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AttackCounts {
    /// Datagrams that the attackers' sockets took.
    pub datagrams: u64,
    /// Their bytes.
    pub datagram_bytes: u64,
    /// Datagrams that these sockets refused.
    pub refused: u64,
    /// Datagrams received at addresses that proved nothing to the server.
    pub returned: u64,
    /// Their bytes.
    pub returned_bytes: u64,
    /// Of the addresses that proved nothing: bytes received there by bytes sent from there, or on its behalf by HTTP; the
    /// worst of them.
    pub amplification: f64,
    /// Datagrams received by the attackers' authenticated sessions.
    pub received: u64,
    /// TCP connections that were opened.
    pub connections: u64,
    /// Those that the server closed.
    pub closed: u64,
    /// HTTP requests.
    pub requests: u64,
    /// Bytes of requests and what else was sent by TCP, without the heads that the HTTP client writes.
    pub request_bytes: u64,
    /// Answers by their status; requests without an answer under `none`.
    pub answers: BTreeMap<String, u64>,
}

impl AttackCounts {
    /// Adds what another attack of the same time did.
    pub(crate) fn add(&mut self, other: &AttackCounts) {
        self.datagrams += other.datagrams;
        self.datagram_bytes += other.datagram_bytes;
        self.refused += other.refused;
        self.returned += other.returned;
        self.returned_bytes += other.returned_bytes;
        self.amplification = self.amplification.max(other.amplification);
        self.received += other.received;
        self.connections += other.connections;
        self.closed += other.closed;
        self.requests += other.requests;
        self.request_bytes += other.request_bytes;
        for (status, count) in &other.answers {
            *self.answers.entry(status.clone()).or_default() += count;
        }
    }

    /// Notes an address that proved nothing: what was sent from there or on its behalf, and what was received there.
    pub(super) fn note_unproven(&mut self, sent: u64, returned: u64, returned_bytes: u64) {
        self.returned += returned;
        self.returned_bytes += returned_bytes;
        self.amplification = self.amplification.max(returned_bytes as f64 / sent.max(1) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amplification_is_that_of_the_address_that_got_most_for_what_it_sent() {
        let mut counts = AttackCounts::default();
        counts.note_unproven(1000, 10, 800);
        assert_eq!(counts.amplification, 0.8);
        counts.note_unproven(100, 2, 150);
        counts.note_unproven(10_000, 0, 0);
        assert_eq!((counts.amplification, counts.returned, counts.returned_bytes), (1.5, 12, 950));
        // Who sent nothing was given everything.
        counts.note_unproven(0, 1, 20);
        assert_eq!(counts.amplification, 20.0);
        let mut all = AttackCounts { amplification: 0.1, ..AttackCounts::default() };
        all.answers.insert("404".into(), 1);
        counts.answers.insert("404".into(), 2);
        all.add(&counts);
        assert_eq!((all.amplification, all.answers["404"]), (20.0, 3));
    }
}
