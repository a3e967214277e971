//! HMAC-SHA1 (RFC 2104) for libsrtp, over OpenSSL's SHA-1: the tag of AES_CM_128_HMAC_SHA1_80.
//!
//! The hash's state after the padded key is kept, so that a packet costs no set-up: OpenSSL's own HMAC looks its digest up by
//! name for each, and ring's SHA-1 does not use the processor's instructions for it and takes four times as long.

use std::mem::ManuallyDrop;
use std::os::raw::{c_int, c_void};
use std::{ptr, slice};

use openssl::sha::Sha1;
use zeroize::Zeroizing;

use super::ffi::{self, Auth, AuthType, Status};
use super::library::{self, bytes, state_of, wipe};

/// Bytes that SHA-1 takes at a time.
const BLOCK: usize = 64;
/// Bytes of a whole tag.
const DIGEST: usize = 20;

/// The type that takes the place of libsrtp's own.
pub(super) fn auth_type(own: &AuthType) -> AuthType {
    AuthType { alloc, dealloc, init, compute, update, start, description: c"HMAC-SHA1 using OpenSSL".as_ptr(), ..*own }
}

/// An authentication function as libsrtp sees it, and its state.
#[repr(C)]
struct Instance {
    auth: Auth,
    hmac: Hmac,
}

pub(super) struct Hmac {
    keyed: ManuallyDrop<Keyed>,
    /// Of the packet under way.
    running: ManuallyDrop<Sha1>,
}

/// SHA-1 after the padded key.
struct Keyed {
    inner: Sha1,
    outer: Sha1,
}

impl Keyed {
    /// `None` if the key is longer than a block, which SRTP's never is.
    fn new(key: &[u8]) -> Option<Keyed> {
        let after = |pad: u8| {
            let mut block = Zeroizing::new([0; BLOCK]);
            block.get_mut(..key.len())?.copy_from_slice(key);
            block.iter_mut().for_each(|byte| *byte ^= pad);
            let mut hash = Sha1::new();
            hash.update(&*block);
            Some(hash)
        };
        Some(Keyed { inner: after(0x36)?, outer: after(0x5c)? })
    }
}

impl Hmac {
    pub(super) fn new(key: &[u8]) -> Option<Hmac> {
        let keyed = Keyed::new(key)?;
        let running = ManuallyDrop::new(keyed.inner.clone());
        Some(Hmac { keyed: ManuallyDrop::new(keyed), running })
    }

    pub(super) fn start(&mut self) {
        self.running = ManuallyDrop::new(self.keyed.inner.clone());
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        self.running.update(data);
    }

    /// The tag of all data since the start.
    pub(super) fn finish(&self) -> [u8; DIGEST] {
        let inner = Sha1::clone(&self.running).finish();
        let mut outer = self.keyed.outer.clone();
        outer.update(&inner);
        outer.finish()
    }
}

impl Drop for Hmac {
    fn drop(&mut self) {
        // SAFETY: nothing uses the two after this, and neither has a destructor that would run.
        unsafe {
            wipe(&mut self.keyed);
            wipe(&mut self.running);
        }
    }
}

/// Makes an instance with an empty key.
unsafe extern "C" fn alloc(made: *mut *mut Auth, key_len: c_int, out_len: c_int) -> Status {
    let fits = |len: c_int, limit: usize| usize::try_from(len).is_ok_and(|len| len <= limit);
    let (Some(auth_type), Some(hmac)) = (library::auth_type(), Hmac::new(&[])) else {
        return ffi::INITIALISATION_FAILED;
    };
    if !fits(key_len, BLOCK) || !fits(out_len, DIGEST) {
        return ffi::BAD_PARAMETER;
    }
    let auth = Auth { auth_type, state: ptr::null_mut(), out_len, key_len, prefix_len: 0 };
    let instance = Box::into_raw(Box::new(Instance { auth, hmac }));
    // SAFETY: `instance` was just made; libsrtp gives a place for the pointer. The `Auth` is the first field.
    unsafe {
        (*instance).auth.state = (&raw mut (*instance).hmac).cast();
        *made = instance.cast();
    }
    ffi::OK
}

/// Frees what `alloc` made, and wipes what came of the key.
unsafe extern "C" fn dealloc(auth: *mut Auth) -> Status {
    // SAFETY: libsrtp gives back what `alloc` gave it, once: a box of the instance that begins with this `Auth`.
    drop(unsafe { Box::from_raw(auth.cast::<Instance>()) });
    ffi::OK
}

/// Takes a key.
unsafe extern "C" fn init(state: *mut c_void, key: *const u8, key_len: c_int) -> Status {
    let Ok(len) = u32::try_from(key_len) else { return ffi::BAD_PARAMETER };
    // SAFETY: see `state_of` and `bytes`; nothing is written there.
    let (hmac, key) = unsafe { (state_of::<Hmac>(state), bytes(key.cast_mut(), len)) };
    let Some(keyed) = Hmac::new(key) else { return ffi::BAD_PARAMETER };
    *hmac = keyed;
    ffi::OK
}

/// Begins a packet.
unsafe extern "C" fn start(state: *mut c_void) -> Status {
    // SAFETY: see `state_of`.
    unsafe { state_of::<Hmac>(state) }.start();
    ffi::OK
}

/// Takes a part of a packet.
unsafe extern "C" fn update(state: *mut c_void, data: *const u8, len: c_int) -> Status {
    let Ok(len) = u32::try_from(len) else { return ffi::BAD_PARAMETER };
    // SAFETY: see `state_of` and `bytes`; nothing is written there.
    let (hmac, data) = unsafe { (state_of::<Hmac>(state), bytes(data.cast_mut(), len)) };
    hmac.update(data);
    ffi::OK
}

/// Takes the last part of a packet and writes the first `tag_len` bytes of its tag.
unsafe extern "C" fn compute(state: *mut c_void, data: *const u8, len: c_int, tag_len: c_int, tag: *mut u8) -> Status {
    let (Ok(len), Ok(tag_len)) = (u32::try_from(len), usize::try_from(tag_len)) else { return ffi::BAD_PARAMETER };
    // SAFETY: see `state_of` and `bytes`; nothing is written there.
    let (hmac, data) = unsafe { (state_of::<Hmac>(state), bytes(data.cast_mut(), len)) };
    hmac.update(data);
    let digest = hmac.finish();
    let Some(digest) = digest.get(..tag_len) else { return ffi::BAD_PARAMETER };
    // SAFETY: libsrtp has room for the tag that it asks for.
    unsafe { slice::from_raw_parts_mut(tag, tag_len) }.copy_from_slice(digest);
    ffi::OK
}
