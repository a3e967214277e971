//! The few calls of OpenSSL that the `openssl` crate lacks: DTLS timers, cookies, buffers, groups, extensions of a ClientHello.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr;
use std::time::Duration;

use foreign_types::ForeignTypeRef;
use libc::{c_int, c_uint, timeval};
use openssl::ssl::{SslRef, SslStream};
use openssl::x509::X509VerifyResult;
use openssl_sys as sys;

use super::queue::DatagramQueue;

/// `DTLS_CTRL_GET_TIMEOUT` and `DTLS_CTRL_HANDLE_TIMEOUT` of OpenSSL's ssl.h.
const GET_TIMEOUT: c_int = 73;
const HANDLE_TIMEOUT: c_int = 74;
/// `SSL_CTRL_GET_EXTMS_SUPPORT`.
const GET_EXTMS_SUPPORT: c_int = 122;

/// The first retransmission comes after this time, each further one after twice the time before (RFC 6347 §4.2.4.1).
/// The standard's 1 s is slow beside the peers' own timers.
const FIRST_TIMEOUT: Duration = Duration::from_millis(100);
const LAST_TIMEOUT: Duration = Duration::from_secs(3);

type TimerCallback = unsafe extern "C" fn(*mut sys::SSL, c_uint) -> c_uint;

unsafe extern "C" {
    fn DTLS_set_timer_cb(ssl: *mut sys::SSL, callback: Option<TimerCallback>);
    fn SSL_free_buffers(ssl: *mut sys::SSL) -> c_int;
    fn SSL_set_options(ssl: *mut sys::SSL, options: u64) -> u64;
    fn SSL_clear_options(ssl: *mut sys::SSL, options: u64) -> u64;
}

/// OpenSSL asks for the next timeout in microseconds, and names the last one; 0 before the first.
unsafe extern "C" fn next_timeout(_: *mut sys::SSL, last_us: c_uint) -> c_uint {
    if last_us == 0 {
        FIRST_TIMEOUT.as_micros() as c_uint
    } else {
        last_us.saturating_mul(2).min(LAST_TIMEOUT.as_micros() as c_uint)
    }
}

/// Sets the retransmission times of a handshake that has not begun.
pub(super) fn set_timer(ssl: &mut SslRef) {
    // SAFETY: the SSL is valid, and the callback is a function that needs nothing of it.
    unsafe { DTLS_set_timer_cb(ssl.as_ptr(), Some(next_timeout)) }
}

/// Shorter times for tests of many handshakes, and no shorter: OpenSSL takes what is left of a timer for nothing from 15 ms on.
#[cfg(test)]
pub(super) fn hurry(ssl: &SslRef) {
    unsafe extern "C" fn next_timeout(_: *mut sys::SSL, last_us: c_uint) -> c_uint {
        last_us.saturating_mul(2).clamp(40_000, 160_000)
    }
    // SAFETY: as in `set_timer`.
    unsafe { DTLS_set_timer_cb(ssl.as_ptr(), Some(next_timeout)) }
}

/// Whether a server's association demands a cookie of the next ClientHello. OpenSSL asks when it has the whole message.
pub(super) fn demand_cookies(stream: &mut SslStream<DatagramQueue>, demand: bool) {
    let option = sys::SSL_OP_COOKIE_EXCHANGE;
    // SAFETY: the SSL is valid and borrowed mutably; both calls change its own options and nothing else.
    unsafe {
        let ssl = stream.ssl().as_ptr();
        if demand {
            SSL_set_options(ssl, option)
        } else {
            SSL_clear_options(ssl, option)
        };
    }
}

/// True if a complete handshake agreed on the extended master secret (RFC 7627).
pub(super) fn has_extended_master_secret(ssl: &SslRef) -> bool {
    // SAFETY: the command takes no argument and reads the SSL, which is valid here.
    unsafe { sys::SSL_ctrl(ssl.as_ptr(), GET_EXTMS_SUPPORT, 0, ptr::null_mut()) == 1 }
}

/// Time until the next retransmission, if a flight waits for its answer.
pub(super) fn timeout(ssl: &SslRef) -> Option<Duration> {
    let mut left = timeval { tv_sec: 0, tv_usec: 0 };
    // SAFETY: this command writes one timeval and reads the SSL, both valid here.
    let running = unsafe { sys::SSL_ctrl(ssl.as_ptr(), GET_TIMEOUT, 0, (&raw mut left).cast()) };
    if running != 1 {
        return None;
    }
    let (seconds, micros) = (u64::try_from(left.tv_sec).ok()?, u64::try_from(left.tv_usec).ok()?);
    Some(Duration::from_secs(seconds) + Duration::from_micros(micros))
}

/// Sends the last flight again if its time has come: positive if it did, 0 if it is too early, negative on failure.
pub(super) fn handle_timeout(stream: &mut SslStream<DatagramQueue>) -> i64 {
    // SAFETY: the command takes no argument; the SSL is valid and borrowed mutably, and so is its BIO.
    unsafe { sys::SSL_ctrl(stream.ssl().as_ptr(), HANDLE_TIMEOUT, 0, ptr::null_mut()) }
}

/// Gives back the record buffers, some 33 kB, until the next read allocates them again. After this OpenSSL must not write
/// before it has read: it would write an alert through a null pointer. So the only ways on are a read and
/// [`close_notify`].
pub(super) fn free_buffers(stream: &mut SslStream<DatagramQueue>) {
    // SAFETY: the SSL is valid and borrowed mutably; OpenSSL refuses, and does nothing, while a buffer holds data.
    let _freed = unsafe { SSL_free_buffers(stream.ssl().as_ptr()) };
}

/// Says close_notify, on a stream whose handshake is complete.
pub(super) fn close_notify(stream: &mut SslStream<DatagramQueue>) {
    // Reading nothing brings back the buffers that `free_buffers` gave away.
    stream.get_mut().clear();
    let _nothing_to_read = stream.ssl_read(&mut [0]);
    // Without the peer's own close_notify this reports "sent"; an error means that none could be sent.
    let _sent = stream.shutdown();
}

/// Replaces the groups of one association by a list such as `X25519:P-256`; false if OpenSSL has none of one name.
pub(super) fn set_groups(ssl: &SslRef, groups: &CStr) -> bool {
    // SAFETY: the command reads a string with its end, which it does not change, and keeps a copy. OpenSSL reads its list
    // anew at each step of a handshake, so that none is in use between two steps, nor in the callback of one.
    unsafe { sys::SSL_ctrl(ssl.as_ptr(), sys::SSL_CTRL_SET_GROUPS_LIST, 0, groups.as_ptr().cast_mut().cast()) == 1 }
}

/// The verification result that OpenSSL turns into the alert bad_certificate.
pub(super) fn certificate_rejected() -> X509VerifyResult {
    // SAFETY: this is one of OpenSSL's own X509_V_ERR numbers.
    unsafe { X509VerifyResult::from_raw(sys::X509_V_ERR_CERT_REJECTED) }
}

/// The body of a ClientHello's extension, inside the ClientHello callback only.
pub(super) fn client_hello_extension(ssl: &SslRef, kind: u16) -> Option<&[u8]> {
    let (mut data, mut len) = (ptr::null(), 0);
    // SAFETY: the outputs are valid; outside the callback OpenSSL returns 0 and writes nothing.
    let found =
        unsafe { sys::SSL_client_hello_get0_ext(ssl.as_ptr(), c_uint::from(kind), &raw mut data, &raw mut len) };
    if found != 1 || data.is_null() {
        return None;
    }
    // SAFETY: OpenSSL names `len` bytes inside the ClientHello, which lives as long as the callback that lent us `ssl`.
    Some(unsafe { std::slice::from_raw_parts(data, len) })
}

/// Makes a peer ask for renegotiation with its next `do_handshake`.
#[cfg(test)]
pub(super) fn renegotiate(stream: &mut SslStream<DatagramQueue>) -> bool {
    unsafe extern "C" {
        fn SSL_renegotiate(ssl: *mut sys::SSL) -> c_int;
    }
    // SAFETY: the SSL is valid and borrowed mutably.
    unsafe { SSL_renegotiate(stream.ssl().as_ptr()) == 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    // DTLS-33, DTLS-35
    #[test]
    fn a_flight_is_repeated_after_times_that_double_up_to_3_s_and_given_up_within_half_a_minute() {
        // SAFETY: the callback does not use the SSL.
        let next = |last: &u32| Some(unsafe { next_timeout(ptr::null_mut(), *last) });
        let times: Vec<u32> = std::iter::successors(next(&0), next).map(|us| us / 1_000).take(10).collect();
        assert_eq!(times, [100, 200, 400, 800, 1_600, 3_000, 3_000, 3_000, 3_000, 3_000]);
        let until_given_up = times.iter().take(super::super::MAX_RETRANSMISSIONS as usize + 1).sum::<u32>();
        assert!((10_000..30_000).contains(&until_given_up), "{until_given_up} ms");
    }
}
