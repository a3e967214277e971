//! The two halves of an SRTP session.

use std::os::raw::{c_int, c_uint, c_ulong};
use std::ptr::{self, NonNull};

use super::error::check;
use super::keying::MasterKey;
use super::{SrtpError, SrtpProfile, ffi, library};

/// Bytes that a buffer must have after a packet that is to be protected. libsrtp names this bound for its tag, an MKI
/// and the SRTCP index; the trailer that really appears is [`SrtpProfile::tag_len`], and 4 more for RTCP.
pub const MAX_TRAILER: usize = ffi::MAX_TRAILER_LEN as usize + 4;

/// RTP and RTCP packets that one master key may protect, those of all SSRCs together (RFC 3711 §9.2).
const RTP_OF_KEY: u64 = 1 << 48;
const RTCP_OF_KEY: u64 = 1 << 31;

/// A key with no more packets left than these is used up: what is sent until the session has ended passes still.
const RESERVE: u64 = 1 << 16;

/// Packets that may arrive late and still be new. High-rate video with retransmission needs more than the 64 of
/// RFC 3711 §3.3.2. For RTCP libsrtp has a fixed window of 128.
pub const REPLAY_WINDOW: usize = 1024;

/// Distinct SSRCs that one peer may send with at a time, RTP and RTCP together.
pub const MAX_INBOUND_SSRCS: usize = 64;

/// SSRCs of one peer that may give way to newer ones.
const MAX_RETIRED_SSRCS: usize = 4096;

/// At a multiple of so many bytes packets begin for libsrtp; those of a shard do, and others cost two copies.
pub const ALIGNMENT: usize = 4;

/// The longest packet, with its trailer, that may begin anywhere.
const COPY_LEN: usize = 2048;

/// A packet that did not begin at a multiple of [`ALIGNMENT`].
#[repr(align(4))]
struct AlignedCopy([u8; COPY_LEN]);

const RTP_HEADER: usize = 12;
const RTCP_HEADER: usize = 8;
const SRTCP_INDEX: usize = 4;

/// One srtp_t with a wildcard policy.
struct Session {
    raw: NonNull<ffi::Context>,
    profile: SrtpProfile,
}

// SAFETY: an srtp_t belongs to no thread; libsrtp only demands that two threads do not use it at once. All calls take
// `&mut Session`, and Session is not Sync, so they cannot.
unsafe impl Send for Session {}

impl Session {
    fn new(profile: SrtpProfile, master: &MasterKey, direction: c_uint, repeats: bool) -> Result<Session, SrtpError> {
        library::start()?;
        if master.len() != profile.key_len() + profile.salt_len() {
            return Err(SrtpError::KeyingMaterial);
        }
        let policy = ffi::Policy {
            ssrc: ffi::Ssrc { type_: direction, value: 0 },
            rtp: crypto_policy(profile),
            rtcp: crypto_policy(profile),
            key: master.as_ptr().cast_mut(),
            keys: ptr::null_mut(),
            num_master_keys: 0,
            ekt: ptr::null_mut(),
            window_size: REPLAY_WINDOW as c_ulong,
            // A retransmission without RTX repeats the index of its packet. Receivers ignore this.
            allow_repeat_tx: c_int::from(repeats),
            enc_xtn_hdr: ptr::null_mut(),
            enc_xtn_hdr_count: 0,
            next: ptr::null_mut(),
        };
        let mut raw: ffi::Session = ptr::null_mut();
        // SAFETY: `raw` and `policy` live through the call. libsrtp reads exactly the key and salt of the profile from
        // `policy.key`, whose length was checked, copies them and keeps no pointer.
        check(unsafe { ffi::srtp_create(&raw mut raw, &raw const policy) })?;
        let raw = NonNull::new(raw).ok_or(SrtpError::Other(ffi::ALLOCATION_FAILED))?;
        Ok(Session { raw, profile })
    }

    /// Runs one of libsrtp's functions over the first `len` bytes of `buf` and returns the new length. libsrtp demands packets
    /// that begin at a multiple of four bytes; one that does not is copied to such a place and back.
    #[inline]
    fn transform(&mut self, function: ffi::Transform, buf: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        if buf.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return self.transform_aligned(function, buf, len);
        }
        let mut copy = AlignedCopy([0; COPY_LEN]);
        let packet = buf.get(..len).ok_or(SrtpError::NoRoom)?;
        copy.0.get_mut(..len).ok_or(SrtpError::NoRoom)?.copy_from_slice(packet);
        let room = buf.len().min(COPY_LEN);
        let new_len = self.transform_aligned(function, &mut copy.0[..room], len)?;
        buf[..new_len].copy_from_slice(&copy.0[..new_len]);
        Ok(new_len)
    }

    fn transform_aligned(&mut self, function: ffi::Transform, buf: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let mut new_len = c_int::try_from(len).map_err(|_| SrtpError::NoRoom)?;
        // SAFETY: the session is valid until drop and borrowed mutably. The callers checked that `buf` holds `len`
        // bytes and, where the function appends, MAX_TRAILER more; the header is at least as long as libsrtp assumes
        // before its own checks, and begins at a multiple of ALIGNMENT.
        check(unsafe { function(self.raw.as_ptr(), buf.as_mut_ptr().cast(), &raw mut new_len) })?;
        // libsrtp never returns more than the checks above allowed; a wrong number would only cost this packet.
        usize::try_from(new_len).ok().filter(|&new| new <= buf.len()).ok_or(SrtpError::NoRoom)
    }

    /// Frees what libsrtp keeps of an SSRC.
    fn remove_stream(&mut self, ssrc: u32) {
        // SAFETY: the session is valid until drop and borrowed mutably; libsrtp names streams in network byte order. The
        // only error is that it has no such stream, and then there is nothing to free.
        let _ = unsafe { ffi::srtp_remove_stream(self.raw.as_ptr(), ssrc.to_be()) };
    }

    /// True if libsrtp keeps something of an SSRC.
    #[cfg(test)]
    fn has_stream(&self, ssrc: u32) -> bool {
        let mut roc = 0;
        // SAFETY: the session is valid until drop, and `roc` lives through the call.
        let status = unsafe { ffi::srtp_get_stream_roc(self.raw.as_ptr(), ssrc, &raw mut roc) };
        status == ffi::OK
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: made by srtp_create and freed only here. libsrtp wipes its keys.
        unsafe { ffi::srtp_dealloc(self.raw.as_ptr()) };
    }
}

fn crypto_policy(profile: SrtpProfile) -> ffi::CryptoPolicy {
    let mut policy = ffi::CryptoPolicy {
        cipher_type: 0,
        cipher_key_len: 0,
        auth_type: 0,
        auth_key_len: 0,
        auth_tag_len: 0,
        sec_serv: ffi::NO_SERVICES,
    };
    // SAFETY: each function fills the structure it is given and does nothing else.
    unsafe {
        match profile {
            SrtpProfile::AeadAes128Gcm => ffi::srtp_crypto_policy_set_aes_gcm_128_16_auth(&raw mut policy),
            SrtpProfile::AeadAes256Gcm => ffi::srtp_crypto_policy_set_aes_gcm_256_16_auth(&raw mut policy),
            // The policy named "RTP default" is AES_CM_128_HMAC_SHA1_80, and it serves RTCP as well.
            SrtpProfile::Aes128CmHmacSha1_80 => ffi::srtp_crypto_policy_set_rtp_default(&raw mut policy),
        }
    }
    policy
}

/// Decrypts and authenticates what a peer sends, any SSRC (RFC 3711 §3.3, §3.4). Only authenticated packets change its
/// state. `Send`, not `Sync`.
pub struct SrtpReceiver {
    session: Session,
    // In order of first appearance; the first entries of a session carry nearly all packets.
    sources: Vec<Source>,
    /// SSRCs that gave way, in order of their numbers. Their replay windows are gone, and so they are refused.
    retired: Vec<u32>,
    /// Authenticated packets so far: the clock of [`Source::last_packet`].
    packets: u64,
}

/// An SSRC that sent authenticated packets.
struct Source {
    ssrc: u32,
    last_packet: u64,
}

impl SrtpReceiver {
    pub(super) fn new(profile: SrtpProfile, master: &MasterKey) -> Result<SrtpReceiver, SrtpError> {
        let session = Session::new(profile, master, ffi::ANY_INBOUND, false)?;
        Ok(SrtpReceiver { session, sources: Vec::with_capacity(8), retired: Vec::new(), packets: 0 })
    }

    /// Turns the first `len` bytes of `buf`, an SRTP packet, into RTP in place and returns the shorter length.
    /// After an error the content of `buf` is undefined and means nothing.
    ///
    /// # Errors
    /// See [`SrtpError`]; all of them mean "drop and count".
    pub fn unprotect_rtp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let packet = buf.get_mut(..len).ok_or(SrtpError::NoRoom)?;
        if len < RTP_HEADER + self.session.profile.tag_len() {
            return Err(SrtpError::TooShort);
        }
        let ssrc = read_u32(packet, 8)?;
        self.unprotect(ffi::srtp_unprotect, packet, ssrc)
    }

    /// Turns the first `len` bytes of `buf`, an SRTCP packet, into a compound RTCP packet in place and returns the
    /// shorter length. After an error the content of `buf` is undefined and means nothing.
    ///
    /// # Errors
    /// See [`SrtpError`]; all of them mean "drop and count".
    pub fn unprotect_rtcp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let packet = buf.get_mut(..len).ok_or(SrtpError::NoRoom)?;
        let tag_len = self.session.profile.tag_len();
        if len < RTCP_HEADER + tag_len + SRTCP_INDEX {
            return Err(SrtpError::TooShort);
        }
        let ssrc = read_u32(packet, 4)?;
        let index_at = match self.session.profile {
            SrtpProfile::AeadAes128Gcm | SrtpProfile::AeadAes256Gcm => len - SRTCP_INDEX,
            SrtpProfile::Aes128CmHmacSha1_80 => len - tag_len - SRTCP_INDEX,
        };
        // The first bit of the index says "encrypted".
        let index = read_u32(packet, index_at)?;
        if index & 0x8000_0000 == 0 {
            return Err(SrtpError::NotEncrypted);
        }
        self.unprotect(ffi::srtp_unprotect_rtcp, packet, ssrc)
    }

    /// True if packets of this SSRC were authentic before.
    pub fn knows(&self, ssrc: u32) -> bool {
        self.sources.iter().any(|source| source.ssrc == ssrc)
    }

    /// True after the first packet of an SSRC more than a session may have: one of the others has to [retire].
    ///
    /// [retire]: SrtpReceiver::retire_idle
    #[inline]
    pub fn has_surplus(&self) -> bool {
        self.sources.len() > MAX_INBOUND_SSRCS
    }

    /// Forgets the SSRC whose last packet is the oldest, of those that are not in use. Packets of it count as replayed from
    /// now on: nobody could tell whether they are.
    pub fn retire_idle(&mut self, is_in_use: impl Fn(u32) -> bool) {
        let idle = self.sources.iter().enumerate().filter(|(_, source)| !is_in_use(source.ssrc));
        let Some((index, _)) = idle.min_by_key(|(_, source)| source.last_packet) else { return };
        let Source { ssrc, .. } = self.sources.remove(index);
        self.session.remove_stream(ssrc);
        if let Err(place) = self.retired.binary_search(&ssrc) {
            self.retired.insert(place, ssrc);
        }
    }

    /// True if libsrtp keeps something of an SSRC.
    #[cfg(test)]
    pub(super) fn has_stream(&self, ssrc: u32) -> bool {
        self.session.has_stream(ssrc)
    }

    /// SSRCs that sent authenticated packets and have not retired.
    #[cfg(test)]
    pub(super) fn ssrcs(&self) -> Vec<u32> {
        self.sources.iter().map(|source| source.ssrc).collect()
    }

    fn unprotect(&mut self, function: ffi::Transform, packet: &mut [u8], ssrc: u32) -> Result<usize, SrtpError> {
        let known = self.sources.iter().position(|source| source.ssrc == ssrc);
        if known.is_none() {
            self.may_appear(ssrc)?;
        }
        let len = packet.len();
        let plain_len = self.session.transform(function, packet, len)?;
        self.packets += 1;
        match known {
            Some(index) => self.sources[index].last_packet = self.packets,
            None => self.sources.push(Source { ssrc, last_packet: self.packets }),
        }
        Ok(plain_len)
    }

    /// Whether there may be one SSRC more, if its packet is authentic.
    fn may_appear(&self, ssrc: u32) -> Result<(), SrtpError> {
        if self.retired.binary_search(&ssrc).is_ok() {
            return Err(SrtpError::Replay);
        }
        if self.has_surplus() || self.retired.len() >= MAX_RETIRED_SSRCS && self.sources.len() >= MAX_INBOUND_SSRCS {
            return Err(SrtpError::TooManySources);
        }
        Ok(())
    }
}

/// Encrypts and signs what is sent to a peer, any SSRC. `Send`, not `Sync`.
///
/// The caller keeps RFC 3711's promise: two different packets never have the same SSRC, rollover count and sequence
/// number (under GCM that would expose the authentication key, RFC 7714 §8). Protecting the very same bytes once more
/// is allowed, for retransmission. A stream starts with a sequence number below 2^15 and never sends one below its
/// first.
pub struct SrtpSender {
    session: Session,
    /// RTP packets that its key may still protect.
    rtp_left: u64,
    /// RTCP packets, likewise.
    rtcp_left: u64,
}

impl SrtpSender {
    pub(super) fn new(profile: SrtpProfile, master: &MasterKey, repeats: bool) -> Result<SrtpSender, SrtpError> {
        let session = Session::new(profile, master, ffi::ANY_OUTBOUND, repeats)?;
        Ok(SrtpSender { session, rtp_left: RTP_OF_KEY, rtcp_left: RTCP_OF_KEY })
    }

    /// True once its key has protected nearly as many packets as it may: no other follows it, so that the session has to end.
    pub fn is_used_up(&self) -> bool {
        self.rtp_left <= RESERVE || self.rtcp_left <= RESERVE
    }

    /// As if its key had protected all but so many packets.
    #[cfg(test)]
    pub(crate) fn leave(&mut self, rtp: u64, rtcp: u64) {
        (self.rtp_left, self.rtcp_left) = (rtp, rtcp);
    }

    /// Turns the RTP packet in the first `len` bytes of `buf` into SRTP in place and returns the new length, longer by
    /// [`SrtpProfile::tag_len`]. `buf` must have [`MAX_TRAILER`] bytes after the packet, which may be overwritten.
    ///
    /// # Errors
    /// [`SrtpError::NoRoom`] without that room, [`SrtpError::TooShort`] if the bytes are no RTP packet,
    /// [`SrtpError::Replay`] if the sequence number is older than the window, [`SrtpError::KeyExpired`] after 2^48 packets.
    pub fn protect_rtp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        room_for_trailer(buf, len)?;
        if len < RTP_HEADER {
            return Err(SrtpError::TooShort);
        }
        self.rtp_left = self.rtp_left.checked_sub(1).ok_or(SrtpError::KeyExpired)?;
        self.session.transform(ffi::srtp_protect, buf, len)
    }

    /// Turns the compound RTCP packet in the first `len` bytes of `buf` into SRTCP in place and returns the new length,
    /// longer by [`SrtpProfile::tag_len`] and 4. `buf` must have [`MAX_TRAILER`] bytes after the packet.
    ///
    /// # Errors
    /// As [`SrtpSender::protect_rtp`]; [`SrtpError::KeyExpired`] after 2^31 packets.
    pub fn protect_rtcp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        room_for_trailer(buf, len)?;
        if len < RTCP_HEADER {
            return Err(SrtpError::TooShort);
        }
        self.rtcp_left = self.rtcp_left.checked_sub(1).ok_or(SrtpError::KeyExpired)?;
        self.session.transform(ffi::srtp_protect_rtcp, buf, len)
    }
}

fn room_for_trailer(buf: &[u8], len: usize) -> Result<(), SrtpError> {
    match len.checked_add(MAX_TRAILER) {
        Some(needed) if needed <= buf.len() => Ok(()),
        _ => Err(SrtpError::NoRoom),
    }
}

fn read_u32(packet: &[u8], at: usize) -> Result<u32, SrtpError> {
    let bytes = packet.get(at..).and_then(|rest| rest.first_chunk()).ok_or(SrtpError::TooShort)?;
    Ok(u32::from_be_bytes(*bytes))
}
