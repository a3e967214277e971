//! A client's connectivity checks, and its answers to the server's, whole or broken in one way, for tests on either side of the crate's border.

use std::net::SocketAddr;

use stun::attributes::{ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, AttrType};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, Message, MessageType, Setter};
use stun::textattrs::Username;

use super::check;
use crate::spec::IceCredentials;

/// Writes one Binding request of a controlling client (RFC 8445 §7.2.4).
#[derive(Clone)]
pub struct CheckBuilder {
    pub(super) typ: MessageType,
    pub(super) username: Option<String>,
    pub(super) attributes: Vec<(u16, Vec<u8>)>,
    pub(super) password: Option<String>,
    /// After MESSAGE-INTEGRITY, which does not protect them.
    pub(super) late_attributes: Vec<(u16, Vec<u8>)>,
    pub(super) fingerprint: bool,
    pub(super) id: [u8; 12],
}

impl CheckBuilder {
    /// A check from the owner of `local` to that of `remote`, which nominates nothing.
    pub fn new(local: &IceCredentials, remote: &IceCredentials) -> CheckBuilder {
        CheckBuilder {
            typ: BINDING_REQUEST,
            username: Some(format!("{}:{}", remote.ufrag, local.ufrag)),
            attributes: vec![(ATTR_PRIORITY.0, vec![110, 0, 1, 255]), (ATTR_ICE_CONTROLLING.0, vec![7; 8])],
            password: Some(remote.pwd.clone()),
            late_attributes: Vec::new(),
            fingerprint: true,
            id: *b"transaction1",
        }
    }

    /// Adds USE-CANDIDATE.
    pub fn nominating(self) -> CheckBuilder {
        self.with(ATTR_USE_CANDIDATE.0, &[])
    }

    /// Sets the transaction id, the same for all checks otherwise.
    pub fn transaction(self, id: [u8; 12]) -> CheckBuilder {
        CheckBuilder { id, ..self }
    }

    /// Adds an attribute.
    pub(super) fn with(mut self, typ: u16, value: &[u8]) -> CheckBuilder {
        self.attributes.push((typ, value.to_vec()));
        self
    }

    /// Leaves an attribute out.
    #[cfg(test)]
    pub(super) fn without(mut self, typ: AttrType) -> CheckBuilder {
        self.attributes.retain(|(other, _)| *other != typ.0);
        self
    }

    /// The datagram.
    pub fn bytes(&self) -> Vec<u8> {
        const FITS: &str = "the attributes of a check fit a message";
        let mut message = Message::new();
        message.write_header();
        message.set_type(self.typ);
        message.transaction_id.0 = self.id;
        message.write_transaction_id();
        if let Some(username) = &self.username {
            Username::new(ATTR_USERNAME, username.clone()).add_to(&mut message).expect(FITS);
        }
        for (typ, value) in &self.attributes {
            message.add(AttrType(*typ), value);
        }
        if let Some(password) = &self.password {
            MessageIntegrity::new_short_term_integrity(password.clone()).add_to(&mut message).expect(FITS);
        }
        for (typ, value) in &self.late_attributes {
            message.add(AttrType(*typ), value);
        }
        if self.fingerprint {
            FINGERPRINT.add_to(&mut message).expect(FITS);
        }
        message.raw
    }
}

/// The success response of the owner of `local` to a check that is for it; `None` for anything else.
pub fn answer_check(local: &IceCredentials, source: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
    check::peek_ufrag(datagram).filter(|ufrag| *ufrag == local.ufrag)?;
    let mut request = Message::new();
    request.unmarshal_binary(datagram).ok()?;
    check::success(&request, source, &local.pwd)
}
