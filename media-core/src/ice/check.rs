//! Reading, authenticating and answering Binding messages (RFC 8489, RFC 8445 §7.3), over the messages of `stun`.

use std::net::SocketAddr;

use stun::attributes::{
    ATTR_FINGERPRINT, ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_MESSAGE_INTEGRITY, ATTR_PRIORITY,
    ATTR_UNKNOWN_ATTRIBUTES, ATTR_USE_CANDIDATE, ATTR_USERNAME, AttrType,
};
use stun::error_code::{CODE_ROLE_CONFLICT, CODE_UNKNOWN_ATTRIBUTE, ErrorCode, ErrorCodeAttribute};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{
    BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, CLASS_INDICATION, MAGIC_COOKIE, METHOD_BINDING, Message,
    MessageType, Setter,
};
use stun::textattrs::Username;
use stun::xoraddr::XorMappedAddress;

use super::refusals::CheckRefusal;
use crate::spec::IceCredentials;
use crate::stats::DropReason;

const HEADER: usize = 20;
/// The type field of a Binding request, success response and error response (RFC 8489 §5).
const REQUEST: [u8; 2] = [0x00, 0x01];
const SUCCESS: [u8; 2] = [0x01, 0x01];
const ERROR: [u8; 2] = [0x01, 0x11];
/// Type and length of an attribute, MESSAGE-INTEGRITY and FINGERPRINT, in bytes (RFC 8489 §14).
const ATTRIBUTE: usize = 4;
const INTEGRITY: usize = ATTRIBUTE + 20;
const CRC: usize = ATTRIBUTE + 4;
/// Types named in a 420; a request that carries more is answered all the same.
const MAX_UNKNOWN: usize = 8;

const PASSWORD_ALGORITHM: u16 = 0x001D;
/// Comprehension-required attributes that are understood, or known to mean nothing in a check.
pub(super) const UNDERSTOOD: [u16; 13] = [
    0x0001, // MAPPED-ADDRESS
    0x0006, // USERNAME
    0x0008, // MESSAGE-INTEGRITY
    0x0009, // ERROR-CODE
    0x000A, // UNKNOWN-ATTRIBUTES
    0x0014, // REALM
    0x0015, // NONCE
    0x001C, // MESSAGE-INTEGRITY-SHA256
    PASSWORD_ALGORITHM,
    0x001E, // USERHASH
    0x0020, // XOR-MAPPED-ADDRESS
    0x0024, // PRIORITY
    0x0025, // USE-CANDIDATE
];

/// True for a STUN Binding request, by its first bytes only.
pub fn is_request(datagram: &[u8]) -> bool {
    has_type(datagram, REQUEST)
}

/// True for a STUN Binding success or error response, by its first bytes only.
pub fn is_response(datagram: &[u8]) -> bool {
    has_type(datagram, SUCCESS) || has_type(datagram, ERROR)
}

/// The transaction id of a STUN message (RFC 8489 §5).
pub fn transaction_id(datagram: &[u8]) -> Option<[u8; 12]> {
    datagram.get(8..HEADER)?.try_into().ok()
}

/// The receiver's username fragment: the part before the colon in USERNAME of a Binding request.
///
/// It only routes; nothing is authenticated yet. Costs no allocation.
pub fn peek_ufrag(datagram: &[u8]) -> Option<&str> {
    let (local, _) = peek_username(datagram)?.split_once(':')?;
    (!local.is_empty()).then_some(local)
}

/// All parts of USERNAME of a Binding request: one of them may be ours where the first is not.
pub fn peek_ufrags(datagram: &[u8]) -> impl Iterator<Item = &str> {
    peek_username(datagram).into_iter().flat_map(|username| username.splitn(3, ':'))
}

fn peek_username(datagram: &[u8]) -> Option<&str> {
    if !is_request(datagram) {
        return None;
    }
    let (_, username) = attributes(datagram).find(|&(typ, _)| typ == ATTR_USERNAME.0)?;
    std::str::from_utf8(username).ok()
}

/// True if a request that this side wrote carries USE-CANDIDATE.
pub(super) fn nominates(datagram: &[u8]) -> bool {
    attributes(datagram).any(|(typ, _)| typ == ATTR_USE_CANDIDATE.0)
}

/// The attributes of a message as far as they are whole, unauthenticated.
fn attributes(datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = datagram.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [t0, t1, l0, l1, after @ ..] = rest else { return None };
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let value = after.get(..length)?;
        rest = after.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_be_bytes([*t0, *t1]), value))
    })
}

fn has_type(datagram: &[u8], kind: [u8; 2]) -> bool {
    datagram.get(..2) == Some(&kind) && datagram.get(4..8) == Some(&MAGIC_COOKIE.to_be_bytes())
}

/// What a well-formed Binding message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Indication,
    Success,
    Error,
}

/// A well-formed Binding message; only [`Binding::authenticate`] proves its origin.
pub(super) struct Binding {
    message: Message,
    pub(super) kind: Kind,
}

/// An authenticated request, as far as ICE cares.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) use_candidate: bool,
    pub(super) controlling: bool,
    pub(super) controlled: bool,
    /// Unknown comprehension-required attributes.
    pub(super) unknown: Vec<u16>,
}

impl Binding {
    /// Checks the form: header, length, attributes, and FINGERPRINT if there is one.
    ///
    /// # Errors
    /// [`DropReason::MalformedStun`].
    pub(super) fn parse(datagram: &[u8]) -> Result<Binding, DropReason> {
        const MALFORMED: DropReason = DropReason::MalformedStun;
        let [b0, _, l0, l1, ..] = datagram else { return Err(MALFORMED) };
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        // `stun` forgives the two top bits, an odd length and trailing bytes; RFC 8489 §5 does not.
        if b0 & 0xC0 != 0 || !length.is_multiple_of(4) || datagram.len() != HEADER + length {
            return Err(MALFORMED);
        }
        let mut message = Message::new();
        message.unmarshal_binary(datagram).map_err(|_| MALFORMED)?;
        if message.typ.method != METHOD_BINDING {
            return Err(MALFORMED);
        }
        let kind = match message.typ {
            typ if typ == BINDING_REQUEST => Kind::Request,
            typ if typ == BINDING_SUCCESS => Kind::Success,
            typ if typ == BINDING_ERROR => Kind::Error,
            typ if typ.class == CLASS_INDICATION => Kind::Indication,
            _ => return Err(MALFORMED),
        };
        let fingerprint = message.attributes.0.iter().position(|attribute| attribute.typ == ATTR_FINGERPRINT);
        if let Some(index) = fingerprint {
            let last = index + 1 == message.attributes.0.len();
            if !last || FINGERPRINT.check(&message).is_err() {
                return Err(MALFORMED);
            }
        }
        Ok(Binding { message, kind })
    }

    /// Its transaction id.
    pub(super) fn transaction(&self) -> [u8; 12] {
        self.message.transaction_id.0
    }

    /// The message itself.
    pub(super) fn message(&self) -> &Message {
        &self.message
    }

    /// Verifies MESSAGE-INTEGRITY in constant time.
    ///
    /// # Errors
    /// [`DropReason::StunIntegrity`] if it is missing or wrong.
    pub(super) fn authenticate(&mut self, password: &str) -> Result<(), DropReason> {
        let integrity = MessageIntegrity::new_short_term_integrity(password.to_owned());
        integrity.check(&mut self.message).map_err(|_| DropReason::StunIntegrity)
    }

    /// Verifies USERNAME and MESSAGE-INTEGRITY of a request and reads it.
    ///
    /// # Errors
    /// [`CheckRefusal::Username`] or [`CheckRefusal::Password`] if it is missing or wrong; the former if both are.
    pub(super) fn into_request(
        mut self,
        local: &IceCredentials,
        remote: &IceCredentials,
    ) -> Result<(Request, Message), CheckRefusal> {
        let authentic = self.authenticate(&local.pwd).is_ok();
        let mut request = Request { use_candidate: false, controlling: false, controlled: false, unknown: Vec::new() };
        let mut named = false;
        // What follows MESSAGE-INTEGRITY is not protected by it and does not count (RFC 8489 §14.5).
        for attribute in self.message.attributes.0.iter().take_while(|a| a.typ != ATTR_MESSAGE_INTEGRITY) {
            match attribute.typ {
                ATTR_USERNAME => named = is_username(&attribute.value, local, remote),
                ATTR_USE_CANDIDATE => request.use_candidate = true,
                ATTR_ICE_CONTROLLING => request.controlling = true,
                ATTR_ICE_CONTROLLED => request.controlled = true,
                AttrType(typ) if typ < 0x8000 && !UNDERSTOOD.contains(&typ) && request.unknown.len() < MAX_UNKNOWN => {
                    request.unknown.push(typ);
                }
                _ => {}
            }
        }
        match (named, authentic) {
            (true, true) => Ok((request, self.message)),
            (false, _) => Err(CheckRefusal::Username),
            (true, false) => Err(CheckRefusal::Password),
        }
    }
}

fn is_username(value: &[u8], local: &IceCredentials, remote: &IceCredentials) -> bool {
    value
        .strip_prefix(local.ufrag.as_bytes())
        .and_then(|rest| rest.strip_prefix(b":"))
        .is_some_and(|rest| rest == remote.ufrag.as_bytes())
}

/// A check of our own that nominates nothing (RFC 8445 §7.2.4). `None` only if a username does not fit an attribute.
pub(super) fn request(
    local: &IceCredentials,
    remote: &IceCredentials,
    controlling: bool,
    transaction: [u8; 12],
) -> Option<Vec<u8>> {
    // As a peer-reflexive candidate would have it (RFC 8445 §5.1.2.1): type preference 110, the best local preference.
    const PRIORITY: u32 = (110 << 24) | (65_535 << 8) | 255;
    let mut message = Message::new();
    message.transaction_id.0 = transaction;
    message.write_header();
    message.set_type(BINDING_REQUEST);
    message.write_transaction_id();
    Username::new(ATTR_USERNAME, format!("{}:{}", remote.ufrag, local.ufrag)).add_to(&mut message).ok()?;
    message.add(ATTR_PRIORITY, &PRIORITY.to_be_bytes());
    // The role never changes, and so the tie-breaker decides nothing.
    message.add(if controlling { ATTR_ICE_CONTROLLING } else { ATTR_ICE_CONTROLLED }, &transaction[..8]);
    sign(&mut message, &remote.pwd)?;
    Some(message.raw)
}

/// The length of [`request`], in bytes.
pub(super) fn request_length(local: &IceCredentials, remote: &IceCredentials) -> usize {
    let username = (remote.ufrag.len() + 1 + local.ufrag.len()).next_multiple_of(4);
    HEADER + (ATTRIBUTE + username) + (ATTRIBUTE + 4) + (ATTRIBUTE + 8) + INTEGRITY + CRC
}

fn sign(message: &mut Message, password: &str) -> Option<()> {
    MessageIntegrity::new_short_term_integrity(password.to_owned()).add_to(message).ok()?;
    FINGERPRINT.add_to(message).ok()
}

/// The success response to a request from `source` (RFC 8445 §7.3.1.2).
pub(super) fn success(request: &Message, source: SocketAddr, password: &str) -> Option<Vec<u8>> {
    let mapped = XorMappedAddress { ip: source.ip().to_canonical(), port: source.port() };
    respond(request, BINDING_SUCCESS, &[&mapped], password)
}

impl Request {
    /// The error response that this authenticated request deserves, if it deserves one: unknown attributes first, then a
    /// role that is ours (`conflict`). The inner `None` is that of [`respond`].
    pub(super) fn refusal(
        &self,
        message: &Message,
        conflict: bool,
        password: &str,
    ) -> Option<(CheckRefusal, Option<Vec<u8>>)> {
        if !self.unknown.is_empty() {
            Some((CheckRefusal::UnknownAttribute, unknown_attributes(message, &self.unknown, password)))
        } else if conflict {
            Some((CheckRefusal::RoleConflict, role_conflict(message, password)))
        } else {
            None
        }
    }
}

/// 420: attributes that must be understood are not (RFC 8489 §6.3.1.1).
fn unknown_attributes(request: &Message, unknown: &[u16], password: &str) -> Option<Vec<u8>> {
    struct Unknown<'a>(&'a [u16]);
    impl Setter for Unknown<'_> {
        fn add_to(&self, message: &mut Message) -> Result<(), stun::Error> {
            let value: Vec<u8> = self.0.iter().flat_map(|typ| typ.to_be_bytes()).collect();
            message.add(ATTR_UNKNOWN_ATTRIBUTES, &value);
            Ok(())
        }
    }
    respond(request, BINDING_ERROR, &[&code(CODE_UNKNOWN_ATTRIBUTE), &Unknown(unknown)], password)
}

/// 487: both sides claim the same role (RFC 8445 §7.3.1.1).
fn role_conflict(request: &Message, password: &str) -> Option<Vec<u8>> {
    respond(request, BINDING_ERROR, &[&code(CODE_ROLE_CONFLICT)], password)
}

/// Without a reason phrase an error stays smaller than the request (RFC 8489 §16.1.2).
fn code(code: ErrorCode) -> ErrorCodeAttribute {
    ErrorCodeAttribute { code, reason: Vec::new() }
}

/// `None` only if a value does not fit an attribute, which none of the callers' does.
fn respond(request: &Message, typ: MessageType, content: &[&dyn Setter], password: &str) -> Option<Vec<u8>> {
    let mut response = Message::new();
    response.write_header();
    typ.add_to(&mut response).ok()?;
    request.add_to(&mut response).ok()?;
    for setter in content {
        setter.add_to(&mut response).ok()?;
    }
    sign(&mut response, password)?;
    Some(response.raw)
}
