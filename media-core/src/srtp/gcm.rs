//! AES-GCM for libsrtp (RFC 7714).
//!
//! The one of libsrtp 2.3 to 2.8 on OpenSSL sets that up again for every packet, by calls that look their parameters up by
//! name and one of which fails each time: that costs more than the cipher itself.

use std::mem::ManuallyDrop;
use std::os::raw::{c_int, c_uint, c_void};
use std::{ptr, slice};

use openssl::memcmp;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};

use super::ffi::{self, Cipher, CipherType, Status};
use super::library::{self, bytes, state_of, wipe};

/// A usual RTP header.
const USUAL_AAD: usize = 64;

/// The type that takes the place of libsrtp's own.
pub(super) fn cipher_type(own: &CipherType) -> CipherType {
    CipherType {
        alloc,
        dealloc,
        init,
        set_aad: Some(set_aad),
        encrypt,
        decrypt,
        set_iv,
        get_tag: Some(get_tag),
        description: c"AES-GCM using ring".as_ptr(),
        ..*own
    }
}

/// A cipher as libsrtp sees it, and its state.
#[repr(C)]
struct Instance {
    cipher: Cipher,
    gcm: Gcm,
}

struct Gcm {
    algorithm: &'static Algorithm,
    /// 16, or 8 as in some of the known answers.
    tag_len: usize,
    nonce: [u8; NONCE_LEN],
    /// Of the packet that was sealed last.
    tag: [u8; MAX_TAG_LEN],
    aad: AdditionalData,
    key: ManuallyDrop<Option<LessSafeKey>>,
}

/// The data of one packet that is authenticated and not encrypted: of RTP its header, which is rarely long.
struct AdditionalData {
    usual: [u8; USUAL_AAD],
    len: usize,
    /// All of it, if it is longer than `usual`.
    long: Vec<u8>,
}

impl AdditionalData {
    fn new() -> AdditionalData {
        AdditionalData { usual: [0; USUAL_AAD], len: 0, long: Vec::new() }
    }

    fn clear(&mut self) {
        self.len = 0;
        self.long.clear();
    }

    #[inline]
    fn extend(&mut self, data: &[u8]) {
        let end = self.len.saturating_add(data.len());
        match self.usual.get_mut(self.len..end) {
            Some(room) => room.copy_from_slice(data),
            None => self.extend_long(data),
        }
        self.len = end;
    }

    #[cold]
    fn extend_long(&mut self, data: &[u8]) {
        if self.long.is_empty() {
            self.long.extend_from_slice(&self.usual[..self.len]);
        }
        self.long.extend_from_slice(data);
    }

    fn as_slice(&self) -> &[u8] {
        self.usual.get(..self.len).unwrap_or(&self.long)
    }
}

impl Gcm {
    /// Encrypts in place; the tag.
    fn seal(&self, data: &mut [u8]) -> Option<[u8; MAX_TAG_LEN]> {
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let key = self.key.as_ref()?;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(self.aad.as_slice()), data).ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Decrypts in place what stands before the tag; the length of that.
    fn open(&self, data: &mut [u8]) -> Option<usize> {
        let len = data.len().checked_sub(self.tag_len)?;
        if self.tag_len == MAX_TAG_LEN {
            let nonce = Nonce::assume_unique_for_key(self.nonce);
            self.key.as_ref()?.open_in_place(nonce, Aad::from(self.aad.as_slice()), data).ok()?;
            return Some(len);
        }
        // ring opens whole tags only. Sealing is its own inverse, and the plain text sealed once more has the tag.
        let (data, short) = data.split_at_mut(len);
        self.seal(data)?;
        let tag = self.seal(&mut data.to_vec())?;
        memcmp::eq(tag.get(..self.tag_len)?, short).then_some(len)
    }
}

impl Drop for Gcm {
    fn drop(&mut self) {
        // SAFETY: nothing uses the key after this, and it has no destructor that would run.
        unsafe { wipe(&mut self.key) };
    }
}

/// Makes a cipher without a key; `key_len` counts the salt, too.
unsafe extern "C" fn alloc(made: *mut *mut Cipher, key_len: c_int, tag_len: c_int) -> Status {
    let (algorithm, id) = match key_len {
        ffi::AES_GCM_128_KEY_LEN => (&AES_128_GCM, ffi::AES_GCM_128),
        ffi::AES_GCM_256_KEY_LEN => (&AES_256_GCM, ffi::AES_GCM_256),
        _ => return ffi::BAD_PARAMETER,
    };
    let Some(cipher_type) = library::cipher_type(id) else { return ffi::INITIALISATION_FAILED };
    let tag_len = match tag_len {
        8 => 8,
        16 => 16,
        _ => return ffi::BAD_PARAMETER,
    };
    let instance = Box::into_raw(Box::new(Instance {
        cipher: Cipher { cipher_type, state: ptr::null_mut(), key_len, algorithm: id as c_int },
        gcm: Gcm {
            algorithm,
            tag_len,
            nonce: [0; NONCE_LEN],
            tag: [0; MAX_TAG_LEN],
            aad: AdditionalData::new(),
            key: ManuallyDrop::new(None),
        },
    }));
    // SAFETY: `instance` was just made; libsrtp gives a place for the pointer. The cipher is the first field.
    unsafe {
        (*instance).cipher.state = (&raw mut (*instance).gcm).cast();
        *made = instance.cast();
    }
    ffi::OK
}

/// Frees what `alloc` made, and wipes the key.
unsafe extern "C" fn dealloc(cipher: *mut Cipher) -> Status {
    // SAFETY: libsrtp gives back what `alloc` gave it, once: a box of the instance that begins with this cipher.
    drop(unsafe { Box::from_raw(cipher.cast::<Instance>()) });
    ffi::OK
}

/// Takes a key, of which the salt is no part.
unsafe extern "C" fn init(state: *mut c_void, key: *const u8) -> Status {
    // SAFETY: see `state_of`; libsrtp gives as many bytes of key as `alloc` was told, which is more than the algorithm's.
    let (gcm, key) = unsafe {
        let gcm = state_of::<Gcm>(state);
        let len = gcm.algorithm.key_len();
        (gcm, slice::from_raw_parts(key, len))
    };
    let Ok(key) = UnboundKey::new(gcm.algorithm, key) else { return ffi::BAD_PARAMETER };
    *gcm.key = Some(LessSafeKey::new(key));
    ffi::OK
}

/// Begins a packet; the direction shows by what follows.
unsafe extern "C" fn set_iv(state: *mut c_void, iv: *mut u8, _direction: c_uint) -> Status {
    // SAFETY: see `state_of`; an IV of AES-GCM has 12 bytes.
    let (gcm, iv) = unsafe { (state_of::<Gcm>(state), slice::from_raw_parts(iv, NONCE_LEN)) };
    gcm.nonce.copy_from_slice(iv);
    gcm.aad.clear();
    ffi::OK
}

/// What is authenticated and not encrypted; for SRTCP in two parts.
unsafe extern "C" fn set_aad(state: *mut c_void, aad: *const u8, len: u32) -> Status {
    // SAFETY: see `state_of` and `bytes`; nothing is written there.
    let (gcm, aad) = unsafe { (state_of::<Gcm>(state), bytes(aad.cast_mut(), len)) };
    gcm.aad.extend(aad);
    ffi::OK
}

/// Encrypts in place; libsrtp fetches the tag next.
unsafe extern "C" fn encrypt(state: *mut c_void, data: *mut u8, len: *mut c_uint) -> Status {
    // SAFETY: see `state_of` and `bytes`.
    let (gcm, data) = unsafe { (state_of::<Gcm>(state), bytes(data, *len)) };
    let Some(tag) = gcm.seal(data) else { return ffi::CIPHER_FAILED };
    gcm.tag = tag;
    ffi::OK
}

/// Writes the tag of what was encrypted last.
unsafe extern "C" fn get_tag(state: *mut c_void, tag: *mut u8, len: *mut u32) -> Status {
    // SAFETY: see `state_of`; libsrtp has room for a tag as long as `alloc` was told after the packet.
    unsafe {
        let gcm = state_of::<Gcm>(state);
        ptr::copy_nonoverlapping(gcm.tag.as_ptr(), tag, gcm.tag_len);
        *len = gcm.tag_len as u32;
    }
    ffi::OK
}

/// Decrypts in place what stands before the tag, if that is right.
unsafe extern "C" fn decrypt(state: *mut c_void, data: *mut u8, len: *mut c_uint) -> Status {
    // SAFETY: see `state_of` and `bytes`.
    let (gcm, data) = unsafe { (state_of::<Gcm>(state), bytes(data, *len)) };
    let Some(plain) = gcm.open(data) else { return ffi::AUTHENTICATION_FAILED };
    // SAFETY: libsrtp's own variable.
    unsafe { *len = plain as c_uint };
    ffi::OK
}
