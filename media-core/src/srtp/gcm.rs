//! AES-GCM for libsrtp (RFC 7714): the cipher that it calls in place of its own.
//!
//! libsrtp's own sets OpenSSL up again for every packet, by calls that look their parameters up by name and one of which
//! fails each time: that costs more than the cipher itself. libsrtp lets a program replace a cipher and takes the new one
//! only if it gives the old one's known answers. Keys, indices, nonces, framing and replay stay libsrtp's.

use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::raw::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;
use std::{ptr, slice};

use openssl::memcmp;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use srtp2_sys as ffi;
use zeroize::Zeroize;

use super::SrtpError;
use super::error::check;

const OK: ffi::srtp_err_status_t = ffi::srtp_err_status_t_srtp_err_status_ok;
const BAD_PARAMETER: ffi::srtp_err_status_t = ffi::srtp_err_status_t_srtp_err_status_bad_param;
const CIPHER_FAILED: ffi::srtp_err_status_t = ffi::srtp_err_status_t_srtp_err_status_cipher_fail;
const AUTHENTICATION_FAILED: ffi::srtp_err_status_t = ffi::srtp_err_status_t_srtp_err_status_auth_fail;

/// A usual RTP header.
const USUAL_AAD: usize = 64;

/// libsrtp's `srtp_cipher_type_t` (crypto/include/cipher.h).
#[repr(C)]
struct CipherType {
    alloc: unsafe extern "C" fn(*mut *mut Cipher, c_int, c_int) -> ffi::srtp_err_status_t,
    dealloc: unsafe extern "C" fn(*mut Cipher) -> ffi::srtp_err_status_t,
    init: unsafe extern "C" fn(*mut c_void, *const u8) -> ffi::srtp_err_status_t,
    set_aad: unsafe extern "C" fn(*mut c_void, *const u8, u32) -> ffi::srtp_err_status_t,
    encrypt: unsafe extern "C" fn(*mut c_void, *mut u8, *mut c_uint) -> ffi::srtp_err_status_t,
    decrypt: unsafe extern "C" fn(*mut c_void, *mut u8, *mut c_uint) -> ffi::srtp_err_status_t,
    set_iv: unsafe extern "C" fn(*mut c_void, *mut u8, c_uint) -> ffi::srtp_err_status_t,
    get_tag: unsafe extern "C" fn(*mut c_void, *mut u8, *mut u32) -> ffi::srtp_err_status_t,
    description: *const c_char,
    /// Known answers.
    test_data: *const c_void,
    id: ffi::srtp_cipher_type_id_t,
}

// SAFETY: nothing changes what the pointers lead to: a literal, and libsrtp's constants.
unsafe impl Send for CipherType {}
// SAFETY: see above.
unsafe impl Sync for CipherType {}

/// With keys of 128 and of 256 bits.
static TYPES: OnceLock<[CipherType; 2]> = OnceLock::new();

/// libsrtp's `srtp_cipher_t`: one cipher with its key.
#[repr(C)]
struct Cipher {
    cipher_type: *const CipherType,
    state: *mut c_void,
    key_len: c_int,
    algorithm: c_int,
}

unsafe extern "C" {
    /// libsrtp's own.
    static srtp_aes_gcm_128: CipherType;
    static srtp_aes_gcm_256: CipherType;
    fn srtp_replace_cipher_type(new: *const CipherType, id: ffi::srtp_cipher_type_id_t) -> ffi::srtp_err_status_t;
}

/// Makes libsrtp use this module's AES-GCM from now on, if that gives the known answers of libsrtp's own. To be called
/// between `srtp_init` and the first session, and once.
pub(super) fn install() -> Result<(), SrtpError> {
    // SAFETY: constants of libsrtp, laid out as in its header.
    let own = unsafe { [&srtp_aes_gcm_128, &srtp_aes_gcm_256] };
    let types = TYPES.get_or_init(|| {
        own.map(|own| CipherType {
            alloc,
            dealloc,
            init,
            set_aad,
            encrypt,
            decrypt,
            set_iv,
            get_tag,
            description: c"AES-GCM using ring".as_ptr(),
            ..*own
        })
    });
    for new in types {
        // SAFETY: `new` lives as long as the process, and nobody else uses libsrtp's list of ciphers meanwhile.
        check(unsafe { srtp_replace_cipher_type(new, new.id) })?;
    }
    Ok(())
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
        const { assert!(!std::mem::needs_drop::<LessSafeKey>()) };
        let key = (&raw mut self.key).cast::<MaybeUninit<u8>>();
        // SAFETY: these are the key's own bytes. Nothing reads them as a key after this, not even a destructor: it has
        // none, and would not run.
        unsafe { slice::from_raw_parts_mut(key, size_of::<Option<LessSafeKey>>()) }.zeroize();
    }
}

/// Makes a cipher without a key; `key_len` counts the salt, too.
unsafe extern "C" fn alloc(made: *mut *mut Cipher, key_len: c_int, tag_len: c_int) -> ffi::srtp_err_status_t {
    let (algorithm, cipher_type) = match (TYPES.get(), u32::try_from(key_len)) {
        (Some([short, _]), Ok(ffi::SRTP_AES_GCM_128_KEY_LEN_WSALT)) => (&AES_128_GCM, short),
        (Some([_, long]), Ok(ffi::SRTP_AES_GCM_256_KEY_LEN_WSALT)) => (&AES_256_GCM, long),
        _ => return BAD_PARAMETER,
    };
    let tag_len = match tag_len {
        8 => 8,
        16 => 16,
        _ => return BAD_PARAMETER,
    };
    let instance = Box::into_raw(Box::new(Instance {
        cipher: Cipher { cipher_type, state: ptr::null_mut(), key_len, algorithm: cipher_type.id as c_int },
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
    OK
}

/// Frees what `alloc` made, and wipes the key.
unsafe extern "C" fn dealloc(cipher: *mut Cipher) -> ffi::srtp_err_status_t {
    // SAFETY: libsrtp gives back what `alloc` gave it, once: a box of the instance that begins with this cipher.
    drop(unsafe { Box::from_raw(cipher.cast::<Instance>()) });
    OK
}

/// The state of a cipher.
///
/// # Safety
/// `state` is what `alloc` wrote there, and nobody else uses it meanwhile.
unsafe fn gcm<'a>(state: *mut c_void) -> &'a mut Gcm {
    // SAFETY: see above. libsrtp uses a session's ciphers only inside the calls that have the session to themselves.
    unsafe { &mut *state.cast::<Gcm>() }
}

/// The bytes of a packet; libsrtp may have no address for none.
///
/// # Safety
/// Nobody else uses the `len` bytes at `data` meanwhile.
unsafe fn bytes<'a>(data: *mut u8, len: c_uint) -> &'a mut [u8] {
    // SAFETY: see above.
    if len == 0 { &mut [] } else { unsafe { slice::from_raw_parts_mut(data, len as usize) } }
}

/// Takes a key, of which the salt is no part.
unsafe extern "C" fn init(state: *mut c_void, key: *const u8) -> ffi::srtp_err_status_t {
    // SAFETY: see `gcm`; libsrtp gives as many bytes of key as `alloc` was told, which is more than the algorithm's.
    let (gcm, key) = unsafe {
        let gcm = gcm(state);
        let len = gcm.algorithm.key_len();
        (gcm, slice::from_raw_parts(key, len))
    };
    let Ok(key) = UnboundKey::new(gcm.algorithm, key) else { return BAD_PARAMETER };
    *gcm.key = Some(LessSafeKey::new(key));
    OK
}

/// Begins a packet; the direction shows by what follows.
unsafe extern "C" fn set_iv(state: *mut c_void, iv: *mut u8, _direction: c_uint) -> ffi::srtp_err_status_t {
    // SAFETY: see `gcm`; an IV of AES-GCM has 12 bytes.
    let (gcm, iv) = unsafe { (gcm(state), slice::from_raw_parts(iv, NONCE_LEN)) };
    gcm.nonce.copy_from_slice(iv);
    gcm.aad.clear();
    OK
}

/// What is authenticated and not encrypted; for SRTCP in two parts.
unsafe extern "C" fn set_aad(state: *mut c_void, aad: *const u8, len: u32) -> ffi::srtp_err_status_t {
    // SAFETY: see `gcm` and `bytes`; nothing is written there.
    let (gcm, aad) = unsafe { (gcm(state), bytes(aad.cast_mut(), len)) };
    gcm.aad.extend(aad);
    OK
}

/// Encrypts in place; libsrtp fetches the tag next.
unsafe extern "C" fn encrypt(state: *mut c_void, data: *mut u8, len: *mut c_uint) -> ffi::srtp_err_status_t {
    // SAFETY: see `gcm` and `bytes`.
    let (gcm, data) = unsafe { (gcm(state), bytes(data, *len)) };
    let Some(tag) = gcm.seal(data) else { return CIPHER_FAILED };
    gcm.tag = tag;
    OK
}

/// Writes the tag of what was encrypted last.
unsafe extern "C" fn get_tag(state: *mut c_void, tag: *mut u8, len: *mut u32) -> ffi::srtp_err_status_t {
    // SAFETY: see `gcm`; libsrtp has room for a tag as long as `alloc` was told after the packet.
    unsafe {
        let gcm = gcm(state);
        ptr::copy_nonoverlapping(gcm.tag.as_ptr(), tag, gcm.tag_len);
        *len = gcm.tag_len as u32;
    }
    OK
}

/// Decrypts in place what stands before the tag, if that is right.
unsafe extern "C" fn decrypt(state: *mut c_void, data: *mut u8, len: *mut c_uint) -> ffi::srtp_err_status_t {
    // SAFETY: see `gcm` and `bytes`.
    let (gcm, data) = unsafe { (gcm(state), bytes(data, *len)) };
    let Some(plain) = gcm.open(data) else { return AUTHENTICATION_FAILED };
    // SAFETY: libsrtp's own variable.
    unsafe { *len = plain as c_uint };
    OK
}
