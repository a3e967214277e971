//! What is used of libsrtp 2: sessions and policies by the bindings of `srtp2-sys`, and what those lack, the structures behind
//! a cipher and an authentication function.
//!
//! The bindings are those of libsrtp 2.3, whose ABI has been the same up to 2.8, but for the name of a field that nobody uses.
//! `layout.c`, which the build compiles against the headers of the linked library, asserts every number, size, offset and
//! function type of this file and of the bindings that are used here.

use std::os::raw::{c_char, c_int, c_uint, c_void};

use srtp2_sys as bound;

pub(super) use srtp2_sys::{
    SRTP_MAX_TRAILER_LEN as MAX_TRAILER_LEN, srtp_create, srtp_crypto_policy_set_aes_gcm_128_16_auth,
    srtp_crypto_policy_set_aes_gcm_256_16_auth, srtp_crypto_policy_set_rtp_default,
    srtp_crypto_policy_t as CryptoPolicy, srtp_ctx_t as Context, srtp_dealloc, srtp_err_status_t as Status, srtp_init,
    srtp_policy_t as Policy, srtp_protect, srtp_protect_rtcp, srtp_remove_stream, srtp_ssrc_t as Ssrc,
    srtp_t as Session, srtp_unprotect, srtp_unprotect_rtcp,
};

#[cfg(test)]
pub(super) use srtp2_sys::srtp_get_stream_roc;

pub(super) const OK: Status = bound::srtp_err_status_t_srtp_err_status_ok;
pub(super) const BAD_PARAMETER: Status = bound::srtp_err_status_t_srtp_err_status_bad_param;
pub(super) const ALLOCATION_FAILED: Status = bound::srtp_err_status_t_srtp_err_status_alloc_fail;
pub(super) const INITIALISATION_FAILED: Status = bound::srtp_err_status_t_srtp_err_status_init_fail;
pub(super) const AUTHENTICATION_FAILED: Status = bound::srtp_err_status_t_srtp_err_status_auth_fail;
pub(super) const CIPHER_FAILED: Status = bound::srtp_err_status_t_srtp_err_status_cipher_fail;
pub(super) const REPLAYED: Status = bound::srtp_err_status_t_srtp_err_status_replay_fail;
pub(super) const REPLAYED_OLD: Status = bound::srtp_err_status_t_srtp_err_status_replay_old;
pub(super) const KEY_EXPIRED: Status = bound::srtp_err_status_t_srtp_err_status_key_expired;
pub(super) const PARSE_ERROR: Status = bound::srtp_err_status_t_srtp_err_status_parse_err;
pub(super) const INDEX_OLD: Status = bound::srtp_err_status_t_srtp_err_status_pkt_idx_old;

pub(super) const NO_SERVICES: c_uint = bound::srtp_sec_serv_t_sec_serv_none;

pub(super) const ANY_INBOUND: c_uint = bound::srtp_ssrc_type_t_ssrc_any_inbound;
pub(super) const ANY_OUTBOUND: c_uint = bound::srtp_ssrc_type_t_ssrc_any_outbound;

/// Of ciphers.
pub(super) const AES_ICM_128: u32 = 1;
pub(super) const AES_ICM_256: u32 = 5;
pub(super) const AES_GCM_128: u32 = 6;
pub(super) const AES_GCM_256: u32 = 7;
/// Of authentication functions.
pub(super) const HMAC_SHA1: u32 = 3;

/// Key and salt together, in bytes.
pub(super) const AES_ICM_128_KEY_LEN: c_int = bound::SRTP_AES_ICM_128_KEY_LEN_WSALT as c_int;
pub(super) const AES_ICM_256_KEY_LEN: c_int = bound::SRTP_AES_ICM_256_KEY_LEN_WSALT as c_int;
pub(super) const AES_GCM_128_KEY_LEN: c_int = bound::SRTP_AES_GCM_128_KEY_LEN_WSALT as c_int;
pub(super) const AES_GCM_256_KEY_LEN: c_int = bound::SRTP_AES_GCM_256_KEY_LEN_WSALT as c_int;

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

    pub(super) fn srtp_replace_cipher_type(new: *const CipherType, id: u32) -> Status;
    pub(super) fn srtp_replace_auth_type(new: *const AuthType, id: u32) -> Status;
}

/// The same numbers as in `layout.c`.
const _: () = {
    use std::mem::offset_of;

    assert!(size_of::<*const u8>() == 8 && size_of::<std::os::raw::c_ulong>() == 8 && size_of::<c_int>() == 4);
    assert!(size_of::<Ssrc>() == 8 && offset_of!(Ssrc, value) == 4);
    assert!(size_of::<CryptoPolicy>() == 24);
    assert!(offset_of!(CryptoPolicy, cipher_key_len) == 4);
    assert!(offset_of!(CryptoPolicy, auth_type) == 8);
    assert!(offset_of!(CryptoPolicy, auth_key_len) == 12);
    assert!(offset_of!(CryptoPolicy, auth_tag_len) == 16);
    assert!(offset_of!(CryptoPolicy, sec_serv) == 20);
    assert!(size_of::<Policy>() == 128);
    assert!(offset_of!(Policy, rtp) == 8 && offset_of!(Policy, rtcp) == 32);
    assert!(offset_of!(Policy, key) == 56 && offset_of!(Policy, keys) == 64);
    assert!(offset_of!(Policy, num_master_keys) == 72 && offset_of!(Policy, ekt) == 80);
    assert!(offset_of!(Policy, window_size) == 88 && offset_of!(Policy, allow_repeat_tx) == 96);
    assert!(offset_of!(Policy, enc_xtn_hdr) == 104);
    assert!(offset_of!(Policy, enc_xtn_hdr_count) == 112 && offset_of!(Policy, next) == 120);
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
    assert!(OK == 0 && BAD_PARAMETER == 2 && ALLOCATION_FAILED == 3 && INITIALISATION_FAILED == 5);
    assert!(AUTHENTICATION_FAILED == 7 && CIPHER_FAILED == 8 && REPLAYED == 9 && REPLAYED_OLD == 10);
    assert!(KEY_EXPIRED == 15 && PARSE_ERROR == 21 && INDEX_OLD == 26);
    assert!(NO_SERVICES == 0 && ANY_INBOUND == 2 && ANY_OUTBOUND == 3 && MAX_TRAILER_LEN == 144);
    assert!(AES_ICM_128_KEY_LEN == 30 && AES_ICM_256_KEY_LEN == 46);
    assert!(AES_GCM_128_KEY_LEN == 28 && AES_GCM_256_KEY_LEN == 44);
};
