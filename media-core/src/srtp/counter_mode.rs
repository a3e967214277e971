//! AES in counter mode for libsrtp (RFC 3711 §4.1.1, RFC 6188): the cipher of AES_CM_128_HMAC_SHA1_80, and what derives the
//! keys of every profile.

use std::os::raw::{c_int, c_uint, c_void};
use std::{ptr, slice};

use openssl::cipher::{Cipher as Algorithm, CipherRef};
use openssl::cipher_ctx::CipherCtx;

use super::ffi::{self, Cipher, CipherType, Status};
use super::library::{self, bytes, state_of};

/// Bytes of salt, which takes part in every counter block.
const SALT: usize = 14;
const BLOCK: usize = 16;

/// The type that takes the place of libsrtp's own.
pub(super) fn cipher_type(own: &CipherType) -> CipherType {
    CipherType {
        alloc,
        dealloc,
        init,
        set_aad: None,
        encrypt: apply_key_stream,
        decrypt: apply_key_stream,
        set_iv,
        get_tag: None,
        description: c"AES in counter mode using OpenSSL".as_ptr(),
        ..*own
    }
}

/// A cipher as libsrtp sees it, and its state.
#[repr(C)]
struct Instance {
    cipher: Cipher,
    counter_mode: CounterMode,
}

struct CounterMode {
    /// Has the key, and wipes it at its end.
    context: CipherCtx,
    algorithm: &'static CipherRef,
    key_len: usize,
    salt: [u8; SALT],
}

/// Makes a cipher without a key; `key_len` counts the salt, too. Counter mode has no tag.
unsafe extern "C" fn alloc(made: *mut *mut Cipher, key_len: c_int, _tag_len: c_int) -> Status {
    let (algorithm, id, aes_key_len) = match key_len {
        ffi::AES_ICM_128_KEY_LEN => (Algorithm::aes_128_ctr(), ffi::AES_ICM_128, 16),
        ffi::AES_ICM_256_KEY_LEN => (Algorithm::aes_256_ctr(), ffi::AES_ICM_256, 32),
        _ => return ffi::BAD_PARAMETER,
    };
    let Some(cipher_type) = library::cipher_type(id) else { return ffi::INITIALISATION_FAILED };
    let Ok(context) = CipherCtx::new() else { return ffi::ALLOCATION_FAILED };
    let instance = Box::into_raw(Box::new(Instance {
        cipher: Cipher { cipher_type, state: ptr::null_mut(), key_len, algorithm: id as c_int },
        counter_mode: CounterMode { context, algorithm, key_len: aes_key_len, salt: [0; SALT] },
    }));
    // SAFETY: `instance` was just made; libsrtp gives a place for the pointer. The cipher is the first field.
    unsafe {
        (*instance).cipher.state = (&raw mut (*instance).counter_mode).cast();
        *made = instance.cast();
    }
    ffi::OK
}

/// Frees what `alloc` made.
unsafe extern "C" fn dealloc(cipher: *mut Cipher) -> Status {
    // SAFETY: libsrtp gives back what `alloc` gave it, once: a box of the instance that begins with this cipher.
    drop(unsafe { Box::from_raw(cipher.cast::<Instance>()) });
    ffi::OK
}

/// Takes a key and the salt behind it.
unsafe extern "C" fn init(state: *mut c_void, key: *const u8) -> Status {
    // SAFETY: see `state_of`; libsrtp gives as many bytes as `alloc` was told, the key and 14 of salt.
    let (cipher, key) = unsafe {
        let cipher = state_of::<CounterMode>(state);
        let len = cipher.key_len + SALT;
        (cipher, slice::from_raw_parts(key, len))
    };
    let (key, salt) = key.split_at(cipher.key_len);
    cipher.salt.copy_from_slice(salt);
    match cipher.context.encrypt_init(Some(cipher.algorithm), Some(key), Some(&[0; BLOCK])) {
        Ok(()) => ffi::OK,
        Err(_) => ffi::INITIALISATION_FAILED,
    }
}

/// Begins a packet: its first counter block is the salt and `iv`, added without carry. Both directions are one.
unsafe extern "C" fn set_iv(state: *mut c_void, iv: *mut u8, _direction: c_uint) -> Status {
    // SAFETY: see `state_of`; an IV of counter mode has 16 bytes.
    let (cipher, iv) = unsafe { (state_of::<CounterMode>(state), slice::from_raw_parts(iv, BLOCK)) };
    let mut counter = [0; BLOCK];
    counter.copy_from_slice(iv);
    for (byte, salt) in counter.iter_mut().zip(cipher.salt) {
        *byte ^= salt;
    }
    match cipher.context.encrypt_init(None, None, Some(&counter)) {
        Ok(()) => ffi::OK,
        Err(_) => ffi::CIPHER_FAILED,
    }
}

/// Encrypts or decrypts in place, going on where the call before ended.
unsafe extern "C" fn apply_key_stream(state: *mut c_void, data: *mut u8, len: *mut c_uint) -> Status {
    // SAFETY: see `state_of` and `bytes`.
    let (cipher, data) = unsafe { (state_of::<CounterMode>(state), bytes(data, *len)) };
    match cipher.context.cipher_update_inplace(data, data.len()) {
        Ok(done) if done == data.len() => ffi::OK,
        _ => ffi::CIPHER_FAILED,
    }
}
