//! libsrtp's start, and the ciphers that it gets.
//!
//! All that is computed over a packet is computed here: AES-GCM by ring, AES in counter mode and SHA-1 by OpenSSL. libsrtp
//! lets a program replace a cipher and takes the new one only if it gives the old one's known answers. Keys, indices, nonces,
//! framing and replay stay libsrtp's. So it is all one which library a distribution built its libsrtp on; Debian's own
//! ciphers, by NSS, are some four times slower.

use std::os::raw::{c_uint, c_void};
use std::slice;
use std::sync::OnceLock;

use zeroize::Zeroize;

use super::error::check;
use super::{SrtpError, counter_mode, ffi, gcm, hmac};

/// The ciphers that take the place of libsrtp's own.
struct Types {
    ciphers: [ffi::CipherType; 4],
    hmac: ffi::AuthType,
}

/// They live as long as the process.
static TYPES: OnceLock<Types> = OnceLock::new();

/// Starts libsrtp, once in a process.
pub(super) fn start() -> Result<(), SrtpError> {
    static STARTED: OnceLock<Result<(), SrtpError>> = OnceLock::new();
    *STARTED.get_or_init(|| {
        // SAFETY: srtp_init has no arguments; OnceLock runs it once and before any other call of this module.
        check(unsafe { ffi::srtp_init() })?;
        replace_ciphers()
    })
}

fn replace_ciphers() -> Result<(), SrtpError> {
    // SAFETY: constants of libsrtp, laid out as in its header.
    let (icm, gcm, hmac) = unsafe {
        let icm = [&ffi::srtp_aes_icm_128, &ffi::srtp_aes_icm_256];
        (icm, [&ffi::srtp_aes_gcm_128, &ffi::srtp_aes_gcm_256], &ffi::srtp_hmac)
    };
    // The last fields of libsrtp's own: a structure of another shape would have something else there.
    let ids = [icm[0].id, icm[1].id, gcm[0].id, gcm[1].id];
    if ids != [ffi::AES_ICM_128, ffi::AES_ICM_256, ffi::AES_GCM_128, ffi::AES_GCM_256] || hmac.id != ffi::HMAC_SHA1 {
        return check(ffi::INITIALISATION_FAILED);
    }
    let types = TYPES.get_or_init(|| Types {
        ciphers: [
            counter_mode::cipher_type(icm[0]),
            counter_mode::cipher_type(icm[1]),
            gcm::cipher_type(gcm[0]),
            gcm::cipher_type(gcm[1]),
        ],
        hmac: hmac::auth_type(hmac),
    });
    for new in &types.ciphers {
        // SAFETY: `new` lives as long as the process, and nobody else uses libsrtp's list of ciphers meanwhile.
        check(unsafe { ffi::srtp_replace_cipher_type(new, new.id) })?;
    }
    // SAFETY: as above.
    check(unsafe { ffi::srtp_replace_auth_type(&types.hmac, types.hmac.id) })
}

/// The type of a cipher that `alloc` makes.
pub(super) fn cipher_type(id: u32) -> Option<&'static ffi::CipherType> {
    TYPES.get()?.ciphers.iter().find(|cipher| cipher.id == id)
}

/// The type of HMAC-SHA1.
pub(super) fn auth_type() -> Option<&'static ffi::AuthType> {
    TYPES.get().map(|types| &types.hmac)
}

/// The bytes of a packet; libsrtp may have no address for none.
///
/// # Safety
/// Nobody else uses the `len` bytes at `data` meanwhile.
pub(super) unsafe fn bytes<'a>(data: *mut u8, len: c_uint) -> &'a mut [u8] {
    // SAFETY: see above.
    if len == 0 { &mut [] } else { unsafe { slice::from_raw_parts_mut(data, len as usize) } }
}

/// The state of a cipher.
///
/// # Safety
/// `state` is what the cipher's `alloc` wrote there, a `T`, and nobody else uses it meanwhile.
pub(super) unsafe fn state_of<'a, T>(state: *mut c_void) -> &'a mut T {
    // SAFETY: see above. libsrtp uses a session's ciphers only inside the calls that have the session to themselves.
    unsafe { &mut *state.cast::<T>() }
}

/// Overwrites a value that holds key bytes.
///
/// # Safety
/// Nothing reads `value` as a `T` after this, not even a destructor.
pub(super) unsafe fn wipe<T>(value: &mut T) {
    const { assert!(!std::mem::needs_drop::<T>()) };
    let bytes = (&raw mut *value).cast::<std::mem::MaybeUninit<u8>>();
    // SAFETY: these are the value's own bytes.
    unsafe { slice::from_raw_parts_mut(bytes, size_of::<T>()) }.zeroize();
}
