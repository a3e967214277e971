//! The SRTP protection profiles that DTLS may choose (RFC 5764 §4.1.2, RFC 7714 §14.2).

use std::fmt;

/// An SRTP protection profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SrtpProfile {
    /// AES-128 in Galois/counter mode: the cheapest of the three, and the preferred one.
    AeadAes128Gcm,
    /// AES-256 in Galois/counter mode.
    AeadAes256Gcm,
    /// AES-128 in counter mode with an 80-bit HMAC-SHA1: the one that every peer knows (RFC 8827 §6.5).
    Aes128CmHmacSha1_80,
}

impl SrtpProfile {
    /// All profiles, the preferred one first.
    pub const ALL: [SrtpProfile; 3] =
        [SrtpProfile::AeadAes128Gcm, SrtpProfile::AeadAes256Gcm, SrtpProfile::Aes128CmHmacSha1_80];

    /// The longest export of any profile, in bytes.
    pub const MAX_EXPORT_LEN: usize = 88;

    /// Master key, in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            SrtpProfile::AeadAes128Gcm | SrtpProfile::Aes128CmHmacSha1_80 => 16,
            SrtpProfile::AeadAes256Gcm => 32,
        }
    }

    /// Master salt, in bytes.
    pub const fn salt_len(self) -> usize {
        match self {
            SrtpProfile::AeadAes128Gcm | SrtpProfile::AeadAes256Gcm => 12,
            SrtpProfile::Aes128CmHmacSha1_80 => 14,
        }
    }

    /// Authentication tag of RTP and of RTCP, in bytes. SRTCP adds 4 bytes of index to it.
    pub const fn tag_len(self) -> usize {
        match self {
            SrtpProfile::AeadAes128Gcm | SrtpProfile::AeadAes256Gcm => 16,
            SrtpProfile::Aes128CmHmacSha1_80 => 10,
        }
    }

    /// What the TLS exporter has to give: both keys and both salts, in bytes (RFC 5764 §4.2).
    pub const fn export_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }

    /// The profile's number in the use_srtp extension.
    pub const fn dtls_id(self) -> u16 {
        match self {
            SrtpProfile::AeadAes128Gcm => 0x0007,
            SrtpProfile::AeadAes256Gcm => 0x0008,
            SrtpProfile::Aes128CmHmacSha1_80 => 0x0001,
        }
    }

    /// The profile of a number in the use_srtp extension.
    pub fn from_dtls_id(id: u16) -> Option<SrtpProfile> {
        SrtpProfile::ALL.into_iter().find(|profile| profile.dtls_id() == id)
    }

    /// The profile's name in OpenSSL's `set_tlsext_use_srtp`.
    pub const fn openssl_name(self) -> &'static str {
        match self {
            SrtpProfile::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
            SrtpProfile::AeadAes256Gcm => "SRTP_AEAD_AES_256_GCM",
            SrtpProfile::Aes128CmHmacSha1_80 => "SRTP_AES128_CM_SHA1_80",
        }
    }

    /// The name in the registry of SRTP crypto suites, for people and for the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            SrtpProfile::AeadAes128Gcm => "AEAD_AES_128_GCM",
            SrtpProfile::AeadAes256Gcm => "AEAD_AES_256_GCM",
            SrtpProfile::Aes128CmHmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
        }
    }
}

impl fmt::Display for SrtpProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
