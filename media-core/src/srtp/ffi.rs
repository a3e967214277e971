//! What is used of libsrtp 2.
//!
//! Its ABI has been the same from 2.3 to 2.8, but for the name of a field that nobody uses. `layout.c`, which the build
//! compiles against the headers of the linked library, asserts every number, size, offset and function type of this file;
//! the bundled library has its bindings compared instead, at the end of this file.

use std::os::raw::{c_char, c_int, c_uint, c_ulong, c_void};

/// A status; 0 is success.
pub(super) type Status = c_uint;

pub(super) const OK: Status = 0;
pub(super) const BAD_PARAMETER: Status = 2;
pub(super) const ALLOCATION_FAILED: Status = 3;
pub(super) const INITIALISATION_FAILED: Status = 5;
pub(super) const AUTHENTICATION_FAILED: Status = 7;
pub(super) const CIPHER_FAILED: Status = 8;
pub(super) const REPLAYED: Status = 9;
pub(super) const REPLAYED_OLD: Status = 10;
pub(super) const KEY_EXPIRED: Status = 15;
pub(super) const PARSE_ERROR: Status = 21;
pub(super) const INDEX_OLD: Status = 26;

pub(super) const ANY_INBOUND: c_uint = 2;
pub(super) const ANY_OUTBOUND: c_uint = 3;

/// Of ciphers.
pub(super) const AES_ICM_128: u32 = 1;
pub(super) const AES_ICM_256: u32 = 5;
pub(super) const AES_GCM_128: u32 = 6;
pub(super) const AES_GCM_256: u32 = 7;
/// Of authentication functions.
pub(super) const HMAC_SHA1: u32 = 3;

/// Key and salt together, in bytes.
pub(super) const AES_ICM_128_KEY_LEN: c_int = 30;
pub(super) const AES_ICM_256_KEY_LEN: c_int = 46;
pub(super) const AES_GCM_128_KEY_LEN: c_int = 28;
pub(super) const AES_GCM_256_KEY_LEN: c_int = 44;

/// `SRTP_MAX_TRAILER_LEN`: a tag and an MKI of the greatest lengths.
pub(super) const MAX_TRAILER_LEN: usize = 144;

/// What an `srtp_t` points at; only libsrtp knows what that is.
#[repr(C)]
pub(super) struct Context {
    _opaque: [u8; 0],
}

/// `srtp_t`.
pub(super) type Session = *mut Context;

/// `srtp_ssrc_t`.
#[repr(C)]
pub(super) struct Ssrc {
    pub(super) kind: c_uint,
    pub(super) value: c_uint,
}

/// `srtp_crypto_policy_t`.
#[repr(C)]
#[derive(Default)]
pub(super) struct CryptoPolicy {
    pub(super) cipher_type: u32,
    pub(super) cipher_key_len: c_int,
    pub(super) auth_type: u32,
    pub(super) auth_key_len: c_int,
    pub(super) auth_tag_len: c_int,
    pub(super) security_services: c_uint,
}

/// `srtp_policy_t`.
#[repr(C)]
pub(super) struct Policy {
    pub(super) ssrc: Ssrc,
    pub(super) rtp: CryptoPolicy,
    pub(super) rtcp: CryptoPolicy,
    pub(super) key: *mut u8,
    pub(super) keys: *mut c_void,
    pub(super) master_keys: c_ulong,
    pub(super) unused: *mut c_void,
    pub(super) window_size: c_ulong,
    pub(super) allow_repeat_tx: c_int,
    pub(super) encrypted_extensions: *mut c_int,
    pub(super) encrypted_extensions_count: c_int,
    pub(super) next: *mut Policy,
}

/// `srtp_cipher_type_t`.
#[repr(C)]
pub(super) struct CipherType {
    pub(super) alloc: unsafe extern "C" fn(*mut *mut Cipher, c_int, c_int) -> Status,
    pub(super) dealloc: unsafe extern "C" fn(*mut Cipher) -> Status,
    pub(super) init: unsafe extern "C" fn(*mut c_void, *const u8) -> Status,
    pub(super) set_aad: Option<unsafe extern "C" fn(*mut c_void, *const u8, u32) -> Status>,
    pub(super) encrypt: unsafe extern "C" fn(*mut c_void, *mut u8, *mut c_uint) -> Status,
    pub(super) decrypt: unsafe extern "C" fn(*mut c_void, *mut u8, *mut c_uint) -> Status,
    pub(super) set_iv: unsafe extern "C" fn(*mut c_void, *mut u8, c_uint) -> Status,
    pub(super) get_tag: Option<unsafe extern "C" fn(*mut c_void, *mut u8, *mut u32) -> Status>,
    pub(super) description: *const c_char,
    /// Known answers.
    pub(super) test_data: *const c_void,
    pub(super) id: u32,
}

// SAFETY: nothing changes what the pointers lead to: a literal, and libsrtp's constants.
unsafe impl Send for CipherType {}
// SAFETY: see above.
unsafe impl Sync for CipherType {}

/// `srtp_cipher_t`: one cipher with its key.
#[repr(C)]
pub(super) struct Cipher {
    pub(super) cipher_type: *const CipherType,
    pub(super) state: *mut c_void,
    pub(super) key_len: c_int,
    pub(super) algorithm: c_int,
}

/// `srtp_auth_type_t`.
#[repr(C)]
pub(super) struct AuthType {
    pub(super) alloc: unsafe extern "C" fn(*mut *mut Auth, c_int, c_int) -> Status,
    pub(super) dealloc: unsafe extern "C" fn(*mut Auth) -> Status,
    pub(super) init: unsafe extern "C" fn(*mut c_void, *const u8, c_int) -> Status,
    pub(super) compute: unsafe extern "C" fn(*mut c_void, *const u8, c_int, c_int, *mut u8) -> Status,
    pub(super) update: unsafe extern "C" fn(*mut c_void, *const u8, c_int) -> Status,
    pub(super) start: unsafe extern "C" fn(*mut c_void) -> Status,
    pub(super) description: *const c_char,
    /// Known answers.
    pub(super) test_data: *const c_void,
    pub(super) id: u32,
}

// SAFETY: nothing changes what the pointers lead to: a literal, and libsrtp's constants.
unsafe impl Send for AuthType {}
// SAFETY: see above.
unsafe impl Sync for AuthType {}

/// `srtp_auth_t`: one authentication function with its key.
#[repr(C)]
pub(super) struct Auth {
    pub(super) auth_type: *const AuthType,
    pub(super) state: *mut c_void,
    pub(super) out_len: c_int,
    pub(super) key_len: c_int,
    pub(super) prefix_len: c_int,
}

/// One of libsrtp's functions that work on a packet in place.
pub(super) type Transform = unsafe extern "C" fn(Session, *mut c_void, *mut c_int) -> Status;

unsafe extern "C" {
    // Its own ciphers and authentication function.
    pub(super) static srtp_aes_icm_128: CipherType;
    pub(super) static srtp_aes_icm_256: CipherType;
    pub(super) static srtp_aes_gcm_128: CipherType;
    pub(super) static srtp_aes_gcm_256: CipherType;
    pub(super) static srtp_hmac: AuthType;

    pub(super) fn srtp_init() -> Status;
    pub(super) fn srtp_replace_cipher_type(new: *const CipherType, id: u32) -> Status;
    pub(super) fn srtp_replace_auth_type(new: *const AuthType, id: u32) -> Status;
    pub(super) fn srtp_create(session: *mut Session, policy: *const Policy) -> Status;
    pub(super) fn srtp_dealloc(session: Session) -> Status;
    pub(super) fn srtp_remove_stream(session: Session, ssrc: c_uint) -> Status;
    #[cfg(test)]
    pub(super) fn srtp_get_stream_roc(session: Session, ssrc: u32, roc: *mut u32) -> Status;
    pub(super) fn srtp_protect(session: Session, packet: *mut c_void, len: *mut c_int) -> Status;
    pub(super) fn srtp_protect_rtcp(session: Session, packet: *mut c_void, len: *mut c_int) -> Status;
    pub(super) fn srtp_unprotect(session: Session, packet: *mut c_void, len: *mut c_int) -> Status;
    pub(super) fn srtp_unprotect_rtcp(session: Session, packet: *mut c_void, len: *mut c_int) -> Status;
    pub(super) fn srtp_crypto_policy_set_rtp_default(policy: *mut CryptoPolicy);
    pub(super) fn srtp_crypto_policy_set_aes_gcm_128_16_auth(policy: *mut CryptoPolicy);
    pub(super) fn srtp_crypto_policy_set_aes_gcm_256_16_auth(policy: *mut CryptoPolicy);
}

/// The same numbers as in `layout.c`.
const _: () = {
    use std::mem::offset_of;

    assert!(size_of::<*const u8>() == 8 && size_of::<c_ulong>() == 8 && size_of::<c_int>() == 4);
    assert!(size_of::<Ssrc>() == 8 && offset_of!(Ssrc, value) == 4);
    assert!(size_of::<CryptoPolicy>() == 24);
    assert!(offset_of!(CryptoPolicy, cipher_key_len) == 4);
    assert!(offset_of!(CryptoPolicy, auth_type) == 8);
    assert!(offset_of!(CryptoPolicy, auth_key_len) == 12);
    assert!(offset_of!(CryptoPolicy, auth_tag_len) == 16);
    assert!(offset_of!(CryptoPolicy, security_services) == 20);
    assert!(size_of::<Policy>() == 128);
    assert!(offset_of!(Policy, rtp) == 8 && offset_of!(Policy, rtcp) == 32);
    assert!(offset_of!(Policy, key) == 56 && offset_of!(Policy, keys) == 64);
    assert!(offset_of!(Policy, master_keys) == 72 && offset_of!(Policy, unused) == 80);
    assert!(offset_of!(Policy, window_size) == 88 && offset_of!(Policy, allow_repeat_tx) == 96);
    assert!(offset_of!(Policy, encrypted_extensions) == 104);
    assert!(offset_of!(Policy, encrypted_extensions_count) == 112 && offset_of!(Policy, next) == 120);
    assert!(size_of::<CipherType>() == 88);
    assert!(offset_of!(CipherType, alloc) == 0 && offset_of!(CipherType, dealloc) == 8);
    assert!(offset_of!(CipherType, init) == 16 && offset_of!(CipherType, set_aad) == 24);
    assert!(offset_of!(CipherType, encrypt) == 32 && offset_of!(CipherType, decrypt) == 40);
    assert!(offset_of!(CipherType, set_iv) == 48 && offset_of!(CipherType, get_tag) == 56);
    assert!(offset_of!(CipherType, description) == 64 && offset_of!(CipherType, test_data) == 72);
    assert!(offset_of!(CipherType, id) == 80);
    assert!(size_of::<Cipher>() == 24 && offset_of!(Cipher, state) == 8);
    assert!(offset_of!(Cipher, key_len) == 16 && offset_of!(Cipher, algorithm) == 20);
    assert!(size_of::<AuthType>() == 72);
    assert!(offset_of!(AuthType, alloc) == 0 && offset_of!(AuthType, dealloc) == 8);
    assert!(offset_of!(AuthType, init) == 16 && offset_of!(AuthType, compute) == 24);
    assert!(offset_of!(AuthType, update) == 32 && offset_of!(AuthType, start) == 40);
    assert!(offset_of!(AuthType, description) == 48 && offset_of!(AuthType, test_data) == 56);
    assert!(offset_of!(AuthType, id) == 64);
    assert!(size_of::<Auth>() == 32 && offset_of!(Auth, state) == 8);
    assert!(offset_of!(Auth, out_len) == 16 && offset_of!(Auth, key_len) == 20 && offset_of!(Auth, prefix_len) == 24);
};

/// The bundled library's bindings against this file. Its vtables are in no public header of it: their source is that of 2.5,
/// and `library.rs` checks where their last field stands.
#[cfg(feature = "bundled-libsrtp")]
const _: () = {
    use srtp2_sys as bound;
    use std::mem::offset_of;

    assert!(size_of::<Policy>() == size_of::<bound::srtp_policy_t>());
    assert!(offset_of!(Policy, rtcp) == offset_of!(bound::srtp_policy_t, rtcp));
    assert!(offset_of!(Policy, key) == offset_of!(bound::srtp_policy_t, key));
    assert!(offset_of!(Policy, keys) == offset_of!(bound::srtp_policy_t, keys));
    assert!(offset_of!(Policy, master_keys) == offset_of!(bound::srtp_policy_t, num_master_keys));
    assert!(offset_of!(Policy, window_size) == offset_of!(bound::srtp_policy_t, window_size));
    assert!(offset_of!(Policy, allow_repeat_tx) == offset_of!(bound::srtp_policy_t, allow_repeat_tx));
    assert!(offset_of!(Policy, encrypted_extensions) == offset_of!(bound::srtp_policy_t, enc_xtn_hdr));
    assert!(offset_of!(Policy, encrypted_extensions_count) == offset_of!(bound::srtp_policy_t, enc_xtn_hdr_count));
    assert!(offset_of!(Policy, next) == offset_of!(bound::srtp_policy_t, next));
    assert!(size_of::<CryptoPolicy>() == size_of::<bound::srtp_crypto_policy_t>());
    assert!(offset_of!(CryptoPolicy, security_services) == offset_of!(bound::srtp_crypto_policy_t, sec_serv));
    assert!(MAX_TRAILER_LEN == bound::SRTP_MAX_TRAILER_LEN as usize);
    assert!(ANY_INBOUND == bound::srtp_ssrc_type_t_ssrc_any_inbound);
    assert!(ANY_OUTBOUND == bound::srtp_ssrc_type_t_ssrc_any_outbound);
    assert!(AUTHENTICATION_FAILED == bound::srtp_err_status_t_srtp_err_status_auth_fail);
    assert!(CIPHER_FAILED == bound::srtp_err_status_t_srtp_err_status_cipher_fail);
    assert!(REPLAYED == bound::srtp_err_status_t_srtp_err_status_replay_fail);
    assert!(REPLAYED_OLD == bound::srtp_err_status_t_srtp_err_status_replay_old);
    assert!(KEY_EXPIRED == bound::srtp_err_status_t_srtp_err_status_key_expired);
    assert!(PARSE_ERROR == bound::srtp_err_status_t_srtp_err_status_parse_err);
    assert!(INDEX_OLD == bound::srtp_err_status_t_srtp_err_status_pkt_idx_old);
};
