//! What the TLS exporter gave, and whose key is whose.

use std::fmt;

use zeroize::Zeroizing;

use super::{SrtpError, SrtpProfile, SrtpReceiver, SrtpSender};
use crate::spec::DtlsRole;

/// The exported keys and salts of one session (RFC 5764 §4.2). They are wiped when this is dropped, and no log shows
/// them.
#[cfg_attr(test, derive(Clone))]
pub struct KeyingMaterial {
    profile: SrtpProfile,
    // client key, server key, client salt, server salt. On the heap, so that moving this leaves no copies.
    bytes: Zeroizing<Box<[u8]>>,
}

/// Master key, then master salt, of one direction.
pub(super) type MasterKey = Zeroizing<Vec<u8>>;

impl KeyingMaterial {
    /// Takes what the exporter gave for a profile; [`SrtpError::KeyingMaterial`] if its length is not
    /// [`SrtpProfile::export_len`].
    pub fn new(profile: SrtpProfile, exported: &[u8]) -> Result<KeyingMaterial, SrtpError> {
        if exported.len() != profile.export_len() {
            return Err(SrtpError::KeyingMaterial);
        }
        Ok(KeyingMaterial { profile, bytes: Zeroizing::new(exported.into()) })
    }

    /// The profile that the keys are for.
    pub fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// The two halves of a session for the end that has this DTLS role: a DTLS server receives with the client's key
    /// and sends with its own.
    pub fn contexts(&self, role: DtlsRole) -> Result<(SrtpReceiver, SrtpSender), SrtpError> {
        self.contexts_with(role, true)
    }

    /// Likewise; a sender that does not repeat packets bit for bit refuses every index that it has used (SRTP-09).
    pub fn contexts_with(&self, role: DtlsRole, repeats: bool) -> Result<(SrtpReceiver, SrtpSender), SrtpError> {
        let (inbound, outbound) = match role {
            DtlsRole::Server => (self.master_key(0), self.master_key(1)),
            DtlsRole::Client => (self.master_key(1), self.master_key(0)),
        };
        Ok((SrtpReceiver::new(self.profile, &inbound)?, SrtpSender::new(self.profile, &outbound, repeats)?))
    }

    /// The master key and salt of the client (0) or of the server (1).
    fn master_key(&self, side: usize) -> MasterKey {
        let (key_len, salt_len) = (self.profile.key_len(), self.profile.salt_len());
        let (keys, salts) = self.bytes.split_at(2 * key_len);
        // One allocation of the final size: a growing vector would leave copies of key bytes.
        let mut master = Zeroizing::new(Vec::with_capacity(key_len + salt_len));
        master.extend_from_slice(&keys[side * key_len..(side + 1) * key_len]);
        master.extend_from_slice(&salts[side * salt_len..(side + 1) * salt_len]);
        master
    }
}

impl fmt::Debug for KeyingMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyingMaterial").field("profile", &self.profile).finish_non_exhaustive()
    }
}
