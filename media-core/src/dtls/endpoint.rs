//! One DTLS association, in either role, over datagrams that the caller carries.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::ssl::{self, ErrorCode, Ssl, SslStream};

use super::agreement::Connection;
use super::check::PeerCheck;
use super::context::{DATAGRAM_SIZE, DtlsContext, DtlsError};
use super::evidence::{End, Evidence};
use super::failure::DtlsFailure;
use super::ffi;
use super::hello::{self, CookieSecret, Shown, Source};
use super::queue::DatagramQueue;
use super::record::{self, HANDSHAKE, records};
use super::screen::{Screen, Screened};
use crate::ledger::{Reason, Stage};
use crate::spec::{DtlsParameters, DtlsRole};

/// Retransmissions of one flight without an answer before the handshake fails, some 15 s after its first transmission.
pub const MAX_RETRANSMISSIONS: u32 = 8;

/// The loss of the server's last flight goes unnoticed: it has no answer, and some clients have no retransmission timer.
/// So it is repeated after these times; a client that has it drops the copies as replays.
const FINAL_FLIGHT_REPEATS: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];

/// Addresses whose cookies are known again when they are returned from another one: as many as a session has.
const MAX_DEMANDED: usize = 16;

/// Room for the server's first flight, in bytes: its certificate is a short one of its own, and the flight has some 700. An
/// address that has sent so much owes no cookie; others do, unless they have answered a check.
const FIRST_FLIGHT: usize = 900;

/// The tag of every AEAD suite offered, and the explicit nonce that those with GCM put first (RFC 5288 §3), in bytes.
const TAG: usize = 16;
const EXPLICIT_NONCE: usize = 8;
/// The longest plaintext of a record, in bytes (RFC 5246 §6.2.1).
const MAX_PLAINTEXT: usize = 1 << 14;

/// What happened to an association.
#[derive(Debug)]
pub enum DtlsEvent {
    /// The first flight was sent or received.
    HandshakeStarted,
    /// The peer has shown that it receives at this address: it returned a cookie, or ended the handshake from where the server's
    /// flight had been sent.
    AddressProven(SocketAddr),
    /// The handshake is complete: the peer's certificate matches the SDP, and the keys are exported.
    Connected(Connection),
    /// It failed, before or after its completion. No event follows, but take what [`DtlsEndpoint::poll_transmit`]
    /// still holds: the fatal alert.
    Failed(DtlsFailure),
    /// The plaintext of one record of application data, such as SCTP of data channels (RFC 8261).
    ApplicationData(Vec<u8>),
    /// The peer sent close_notify. No event follows.
    PeerClosed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was sent or received yet.
    Idle,
    Handshaking,
    Connected,
    /// Failed, closed by the peer, or closed by us.
    Ended,
}

/// One DTLS association. Feed it with [`DtlsEndpoint::start`], [`DtlsEndpoint::handle_datagram`] and
/// [`DtlsEndpoint::handle_timeout`]; after each of them take what [`DtlsEndpoint::poll_transmit`] and
/// [`DtlsEndpoint::poll_event`] hold, and look at [`DtlsEndpoint::poll_timeout`].
///
/// Only datagrams from an address that ICE has validated belong here. Plaintext records, which anybody may forge, do not end a
/// handshake as long as the peer goes on with it; but a forged key exchange, or the signature that follows it, may keep one from
/// its end. After the handshake only authenticated records have an effect.
///
/// OpenSSL measures its timers with the system's clock, so `now` must be the real time.
pub struct DtlsEndpoint {
    stream: SslStream<DatagramQueue>,
    check: Arc<PeerCheck>,
    role: DtlsRole,
    state: State,
    events: VecDeque<DtlsEvent>,
    deadline: Option<Instant>,
    /// Of the flight that waits for its answer; after the handshake, of the final flight.
    retransmissions: u32,
    final_flight: Vec<Vec<u8>>,
    screen: Screen,
    evidence: Evidence,
    cookies: CookieSecret,
    /// The address with which the handshake is under way, where its source is known.
    destination: Option<SocketAddr>,
    /// Addresses at which a cookie was demanded: from then on the client numbers its messages accordingly.
    demanded_at: Vec<SocketAddr>,
    /// Of these, the one whose cookie the client has returned.
    returned: Option<SocketAddr>,
    /// The server's role has answered a ClientHello by its first flight, towards this address.
    released: Option<Option<SocketAddr>>,
}

impl DtlsEndpoint {
    /// An association in the role `parameters.role` with a peer whose certificate must match one of
    /// `parameters.fingerprints`. Nothing is sent yet.
    ///
    /// # Errors
    /// Only if OpenSSL has no memory left.
    pub fn new(context: &DtlsContext, parameters: DtlsParameters) -> Result<DtlsEndpoint, DtlsError> {
        let check = Arc::new(PeerCheck::new(parameters.fingerprints));
        let mut ssl = Ssl::new(context.ssl())?;
        ssl.set_ex_data(context.check_index(), Arc::clone(&check));
        ssl.set_mtu(DATAGRAM_SIZE as u32)?;
        ffi::set_timer(&mut ssl);
        match parameters.role {
            DtlsRole::Client => {
                if !ffi::set_groups(&ssl, context.groups()) {
                    return Err(ErrorStack::get().into());
                }
                ssl.set_connect_state();
            }
            DtlsRole::Server => ssl.set_accept_state(),
        }
        Ok(DtlsEndpoint {
            stream: SslStream::new(ssl, DatagramQueue::default())?,
            check,
            role: parameters.role,
            state: State::Idle,
            events: VecDeque::new(),
            deadline: None,
            retransmissions: 0,
            final_flight: Vec::new(),
            screen: Screen::new(parameters.role),
            evidence: Evidence::default(),
            cookies: CookieSecret::new()?,
            destination: None,
            demanded_at: Vec::new(),
            returned: None,
            released: None,
        })
    }

    /// A pair is selected: a client sends its ClientHello. It does nothing in the server role, or when repeated.
    pub fn start(&mut self, now: Instant) {
        if self.role == DtlsRole::Client && self.state == State::Idle {
            self.begin();
            self.drive(now);
        }
    }

    /// Takes one datagram of the peer. Anything but DTLS, or of the wrong role, or after the end is ignored.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        if self.is_acceptable(datagram) {
            self.take(now, datagram);
        }
    }

    /// Takes one datagram as [`DtlsEndpoint::handle_datagram`] does. In the server's role a source that has no room for the
    /// first flight has to return a cookie before it gets that (RFC 6347 §4.2.1). The client may have moved to another pair
    /// meanwhile: the cookie of one address proves that one, whatever address it comes from, and the flight goes there.
    pub fn handle_datagram_from(&mut self, now: Instant, source: Source, datagram: &[u8]) {
        if !self.is_acceptable(datagram) {
            return;
        }
        if self.role == DtlsRole::Server && self.released.is_none() {
            let Some(proven) = self.address_to_answer(source, datagram) else { return };
            self.take(now, datagram);
            if let Some(answer) = self.stream.get_ref().unsent().next() {
                if hello::is_hello_verify_request(answer) {
                    self.destination = Some(source.address);
                    if !self.demanded_at.contains(&source.address) && self.demanded_at.len() < MAX_DEMANDED {
                        self.demanded_at.push(source.address);
                    }
                } else {
                    self.destination = Some(proven);
                    self.released = Some(self.destination);
                }
            }
            return;
        }
        if source.room.is_none() {
            self.destination = Some(source.address);
        }
        let was_connected = self.is_connected();
        self.take(now, datagram);
        let is_from_there = self.released == Some(Some(source.address)) && source.room.is_some();
        if !was_connected && self.is_connected() && is_from_there {
            self.events.push_front(DtlsEvent::AddressProven(source.address));
        }
    }

    /// Judges the cookie of a datagram before OpenSSL does, which would end the handshake over a wrong one, and says whether a
    /// cookie is due. Where the flight is to go if none is; `None` if the datagram is to be dropped.
    fn address_to_answer(&mut self, source: Source, datagram: &[u8]) -> Option<SocketAddr> {
        let mut address = source.address;
        // Once demanded, always: to a ClientHello of before, sent again, OpenSSL would answer by a flight whose numbers the client
        // has left behind.
        let is_demanded = !self.demanded_at.is_empty();
        let mut owes_cookie = is_demanded || source.room.is_some_and(|room| room < FIRST_FLIGHT);
        if owes_cookie {
            match hello::shown_cookie(datagram) {
                Shown::Cookie([]) => {}
                Shown::Cookie(shown) => {
                    let mut known = std::iter::once(address).chain(self.demanded_at.iter().copied());
                    address = known.find(|&known| self.cookies.cookie(known) == shown)?;
                    owes_cookie = false;
                    self.returned = Some(address);
                    self.events.push_back(DtlsEvent::AddressProven(address));
                }
                // More of a ClientHello whose cookie stood in an earlier datagram.
                Shown::NoHello => address = self.returned.unwrap_or(address),
                Shown::Broken => return None,
            }
        }
        self.check.expect_cookie(self.cookies.cookie(address));
        ffi::demand_cookies(&mut self.stream, owes_cookie);
        Some(address)
    }

    /// Where to send what [`DtlsEndpoint::poll_transmit`] has, while the handshake is under way and if its source is known.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.destination.filter(|_| !self.is_connected())
    }

    fn take(&mut self, now: Instant, datagram: &[u8]) {
        if self.state == State::Connected {
            self.feed(now, datagram);
            return;
        }
        let check = Arc::clone(&self.check);
        let Screened { datagrams, alert, suspect } = self.screen.take(datagram, |der| check.is_the_peers(der));
        if !datagrams.is_empty() && self.state == State::Idle {
            self.begin();
        }
        for datagram in datagrams {
            if self.state == State::Ended {
                return;
            }
            self.feed(now, &datagram);
        }
        if self.state == State::Handshaking {
            self.evidence.add(now, alert, suspect);
        }
    }

    fn feed(&mut self, now: Instant, datagram: &[u8]) {
        self.stream.get_mut().put(datagram);
        self.drive(now);
    }

    /// Nothing better has come: what may have been forged was true. OpenSSL says why it refuses a certificate, and tells the peer.
    fn judge(&mut self, now: Instant) {
        let (suspect, end) = std::mem::take(&mut self.evidence).judgement();
        for datagram in suspect {
            if self.state == State::Handshaking {
                self.feed(now, &datagram);
            }
        }
        if self.state != State::Handshaking {
            return;
        }
        match end {
            Some(End::Closed) => {
                self.end();
                self.events.push_back(DtlsEvent::PeerClosed);
            }
            Some(End::Failed(failure)) => self.fail(failure),
            None => {}
        }
    }

    /// When to call [`DtlsEndpoint::handle_timeout`]; `None` while no flight waits for an answer.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.evidence.deadline()).min()
    }

    /// Retransmits the last flight if it is due, or fails the handshake. Calling it early does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.evidence.deadline().is_some_and(|deadline| now >= deadline) {
            self.judge(now);
        }
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.state {
            State::Handshaking => self.repeat_flight(now),
            State::Connected => self.repeat_final_flight(now),
            State::Idle | State::Ended => {}
        }
    }

    fn repeat_flight(&mut self, now: Instant) {
        if self.retransmissions >= MAX_RETRANSMISSIONS {
            self.fail(DtlsFailure {
                reason: Reason::DtlsTimeout,
                stage: Stage::Dtls,
                detail: format!("no answer to {MAX_RETRANSMISSIONS} retransmissions, state {}", self.progress()),
            });
            return;
        }
        drop(ErrorStack::get());
        match ffi::handle_timeout(&mut self.stream) {
            0 => {}
            1.. => self.retransmissions += 1,
            _ => {
                let failure = DtlsFailure::of_stack(&ErrorStack::get(), self.role);
                self.fail(failure);
                return;
            }
        }
        self.await_answer(now);
    }

    fn repeat_final_flight(&mut self, now: Instant) {
        for datagram in &self.final_flight {
            self.stream.get_mut().send(datagram.clone());
        }
        self.retransmissions += 1;
        self.await_next_repetition(now);
    }

    /// The next datagram to send, at most [`DATAGRAM_SIZE`] bytes.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.stream.get_mut().pop_joined(DATAGRAM_SIZE)
    }

    /// Shorter timers, for tests of many handshakes.
    #[cfg(test)]
    pub(super) fn hurry(&mut self) {
        ffi::hurry(self.stream.ssl());
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<DtlsEvent> {
        self.events.pop_front()
    }

    /// True after [`DtlsEvent::Connected`] and before the end.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// True once the association failed or was closed by either side.
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Ends the association. A completed one sends close_notify (RFC 5246 §7.2.1); during a handshake there is no
    /// alert for this, and the peer learns it from ICE.
    pub fn close(&mut self) {
        if self.state == State::Connected {
            ffi::close_notify(&mut self.stream);
        }
        self.end();
    }

    fn begin(&mut self) {
        self.state = State::Handshaking;
        self.events.push_back(DtlsEvent::HandshakeStarted);
    }

    fn end(&mut self) {
        self.state = State::Ended;
        self.deadline = None;
        self.evidence = Evidence::default();
    }

    fn fail(&mut self, failure: DtlsFailure) {
        self.end();
        self.events.push_back(DtlsEvent::Failed(failure));
    }

    /// Drops before OpenSSL what it would take for the end of the stream or for a broken handshake.
    fn is_acceptable(&self, datagram: &[u8]) -> bool {
        if datagram.len() < record::HEADER {
            return false;
        }
        match (self.state, self.role) {
            (State::Connected, _) => !self.has_short_record(datagram),
            (State::Ended, _) | (State::Idle, DtlsRole::Client) => false,
            (State::Idle | State::Handshaking, role) => !is_from_same_role(datagram, role),
        }
    }

    /// True if an encrypted record is shorter than the cipher's nonce and tag. OpenSSL 3.0 ends the association over one,
    /// although nothing in it is authenticated (RFC 6347 §4.1.2.7: discard silently).
    fn has_short_record(&self, datagram: &[u8]) -> bool {
        let has_nonce = self.stream.ssl().current_cipher().is_some_and(|cipher| cipher.name().contains("GCM"));
        let least = TAG + if has_nonce { EXPLICIT_NONCE } else { 0 };
        records(datagram).any(|record| !record.is_plain() && record.length() < least)
    }

    /// Lets OpenSSL work until it needs another datagram.
    fn drive(&mut self, now: Instant) {
        // Errors left on this thread by other calls would be taken for ours.
        drop(ErrorStack::get());
        if self.state == State::Handshaking {
            let before = self.progress();
            match self.stream.do_handshake() {
                Ok(()) => self.complete(now),
                Err(error) => self.handle_error(&error),
            }
            if self.progress() != before {
                self.retransmissions = 0;
                self.evidence = Evidence::default();
            }
            if self.state == State::Handshaking {
                self.await_answer(now);
            }
        }
        if self.state == State::Connected {
            self.read();
            // Reading allocated the buffers again.
            ffi::free_buffers(&mut self.stream);
        }
        self.stream.get_mut().clear();
    }

    /// Reads the records after the handshake: application data is handed out, alerts count, and a repeated last flight
    /// makes OpenSSL repeat ours.
    fn read(&mut self) {
        let mut plaintext = [0; MAX_PLAINTEXT];
        loop {
            match self.stream.ssl_read(&mut plaintext) {
                Ok(length) => self.events.push_back(DtlsEvent::ApplicationData(plaintext[..length].to_vec())),
                Err(error) => return self.handle_error(&error),
            }
        }
    }

    fn complete(&mut self, now: Instant) {
        match Connection::agreed(self.stream.ssl(), &self.check, self.role) {
            Ok(connection) => {
                self.state = State::Connected;
                self.events.push_back(DtlsEvent::Connected(connection));
                self.deadline = None;
                if self.role == DtlsRole::Server {
                    self.final_flight = self.stream.get_ref().unsent().cloned().collect();
                    self.retransmissions = 0;
                    self.await_next_repetition(now);
                }
            }
            Err(failure) => {
                ffi::close_notify(&mut self.stream);
                self.fail(failure);
            }
        }
    }

    fn handle_error(&mut self, error: &ssl::Error) {
        match error.code() {
            ErrorCode::WANT_READ | ErrorCode::WANT_WRITE => {}
            ErrorCode::ZERO_RETURN => {
                if self.state == State::Connected {
                    ffi::close_notify(&mut self.stream);
                }
                self.end();
                self.events.push_back(DtlsEvent::PeerClosed);
            }
            _ => {
                let failure = DtlsFailure::of_verdict(&self.check.verdict(), &self.check, self.role).unwrap_or_else(
                    || match error.ssl_error() {
                        Some(stack) => DtlsFailure::of_stack(stack, self.role),
                        None => DtlsFailure {
                            reason: Reason::DtlsProtocolError,
                            stage: Stage::Dtls,
                            detail: error.to_string(),
                        },
                    },
                );
                self.fail(failure);
            }
        }
    }

    /// OpenSSL's name for the state of the handshake.
    fn progress(&self) -> &'static str {
        self.stream.ssl().state_string_long()
    }

    /// OpenSSL runs the timer of a flight that waits for its answer.
    fn await_answer(&mut self, now: Instant) {
        self.deadline = ffi::timeout(self.stream.ssl()).map(|left| now + left.max(MIN_TIMEOUT));
    }

    fn await_next_repetition(&mut self, now: Instant) {
        let wait = FINAL_FLIGHT_REPEATS.get(self.retransmissions as usize);
        self.deadline = wait.map(|&wait| now + wait);
        if self.deadline.is_none() {
            self.final_flight = Vec::new();
        }
    }
}

/// Keeps a loop that trusts [`DtlsEndpoint::poll_timeout`] from spinning, whatever the system's clock does.
const MIN_TIMEOUT: Duration = Duration::from_millis(1);

impl fmt::Debug for DtlsEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsEndpoint").field("role", &self.role).field("state", &self.state).finish_non_exhaustive()
    }
}

/// True if the datagram begins with a hello that only our own role sends (RFC 5246 §7.4.1): two clients or two servers
/// met, and OpenSSL would call it an unexpected message.
fn is_from_same_role(datagram: &[u8], role: DtlsRole) -> bool {
    let first = records(datagram).next().filter(|record| record.kind() == HANDSHAKE && record.is_plain());
    match (first.and_then(|record| record.body.first()), role) {
        (Some(message), DtlsRole::Client) => *message == 1,
        (Some(message), DtlsRole::Server) => matches!(message, 0 | 2 | 3),
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtls::Certificate;

    #[test]
    fn a_flight_without_answer_is_given_up() {
        // DTLS-33
        let context = DtlsContext::new(&Certificate::generate().unwrap()).unwrap();
        let parameters = DtlsParameters { role: DtlsRole::Client, fingerprints: Vec::new() };
        let mut client = DtlsEndpoint::new(&context, parameters).unwrap();
        client.start(Instant::now());
        // The real timers would take 15 s.
        client.retransmissions = MAX_RETRANSMISSIONS;
        client.handle_timeout(client.deadline.unwrap());
        assert!(matches!(client.poll_event(), Some(DtlsEvent::HandshakeStarted)));
        let Some(DtlsEvent::Failed(failure)) = client.poll_event() else { panic!("goes on") };
        assert_eq!((failure.reason, failure.stage), (Reason::DtlsTimeout, Stage::Dtls));
        assert!(client.is_ended() && client.poll_timeout().is_none());
    }

    #[test]
    fn the_final_flight_is_repeated_three_times() {
        // DTLS-38, in virtual time: this timer is ours.
        let certificate = Certificate::generate().unwrap();
        let context = DtlsContext::new(&certificate).unwrap();
        let end = |role| {
            let fingerprints = vec![certificate.fingerprint().clone()];
            DtlsEndpoint::new(&context, DtlsParameters { role, fingerprints }).unwrap()
        };
        let (mut client, mut server) = (end(DtlsRole::Client), end(DtlsRole::Server));
        let began = Instant::now();
        client.start(began);
        while !server.is_connected() {
            while let Some(datagram) = client.poll_transmit() {
                server.handle_datagram(began, &datagram);
            }
            if !server.is_connected() {
                while let Some(datagram) = server.poll_transmit() {
                    client.handle_datagram(began, &datagram);
                }
            }
        }
        let last = server.poll_transmit().unwrap();
        assert!(server.poll_transmit().is_none());
        for at in [100, 300, 700] {
            let due = began + Duration::from_millis(at);
            assert_eq!(server.poll_timeout(), Some(due));
            server.handle_timeout(due - Duration::from_millis(1));
            assert!(server.poll_transmit().is_none());
            server.handle_timeout(due);
            assert_eq!(server.poll_transmit().as_ref(), Some(&last));
        }
        assert_eq!(server.poll_timeout(), None);
        assert!(server.final_flight.is_empty());
        client.handle_datagram(began, &last);
        client.handle_datagram(began, &last);
        assert!(client.is_connected());
    }
}
