//! The byte of an IP header by which routers treat a packet: its differentiated services code point (RFC 2474 §3), and below that
//! the ECN field.

use std::fmt;
use std::str::FromStr;

use crate::ecn::Ecn;
use crate::media::MediaKind;

/// A differentiated services code point: 0 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dscp(u8);

/// Not the name of a code point (EF, VA, LE, CS0 to CS7, AF11 to AF43), and no number from 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no DSCP: EF, VA, LE, CS0 to CS7, AF11 to AF43, or 0 to 63")]
pub struct NoDscp;

impl Dscp {
    /// The code point of this number; `None` above 63.
    pub const fn new(number: u8) -> Option<Dscp> {
        if number < 64 { Some(Dscp(number)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// By name (RFC 2474, RFC 2597, RFC 3246, RFC 5865, RFC 8622), in any case, or by number.
impl FromStr for Dscp {
    type Err = NoDscp;

    fn from_str(text: &str) -> Result<Dscp, NoDscp> {
        let name = text.trim().to_ascii_uppercase();
        let number = match name.as_bytes() {
            b"EF" => 46,
            b"VA" => 44,
            b"LE" => 1,
            [b'C', b'S', class @ b'0'..=b'7'] => (class - b'0') * 8,
            [b'A', b'F', class @ b'1'..=b'4', drop @ b'1'..=b'3'] => (class - b'0') * 8 + (drop - b'0') * 2,
            [b'0'..=b'9', ..] => name.parse().map_err(|_| NoDscp)?,
            _ => return Err(NoDscp),
        };
        Dscp::new(number).ok_or(NoDscp)
    }
}

impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The code points of the media that viewers are sent (RFC 8837 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaDscp {
    /// Of audio.
    pub audio: Dscp,
    /// Of video, its retransmissions and padding.
    pub video: Dscp,
}

impl MediaDscp {
    /// That of a kind.
    #[inline]
    pub fn of(self, kind: MediaKind) -> Dscp {
        match kind {
            MediaKind::Audio => self.audio,
            MediaKind::Video => self.video,
        }
    }
}

/// Both fields in one byte; 0 is what a packet has that nobody marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TrafficClass(u8);

impl TrafficClass {
    /// Best effort, and no ECN.
    pub const DEFAULT: TrafficClass = TrafficClass(0);

    /// Of its two fields.
    #[inline]
    pub const fn new(dscp: Dscp, ecn: Ecn) -> TrafficClass {
        TrafficClass(dscp.0 << 2 | ecn.bits())
    }

    /// The byte of the IP header.
    #[inline]
    pub const fn byte(self) -> u8 {
        self.0
    }
}

impl From<Ecn> for TrafficClass {
    fn from(ecn: Ecn) -> TrafficClass {
        TrafficClass::new(Dscp::default(), ecn)
    }
}

#[cfg(test)]
mod tests {
    use std::mem;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::ptr;
    use std::time::Duration;

    use super::*;
    use crate::net::{MediaSocket, SendBatch, TransportTuple};

    // OPS-09
    #[test]
    fn code_points_have_names_and_numbers() {
        for (text, number) in [
            ("0", 0),
            ("63", 63),
            ("EF", 46),
            ("ef", 46),
            ("VA", 44),
            ("LE", 1),
            ("CS0", 0),
            ("CS1", 8),
            ("CS7", 56),
            ("AF11", 10),
            (" af41 ", 34),
            ("AF42", 36),
            ("AF43", 38),
        ] {
            assert_eq!(text.parse(), Ok(Dscp(number)), "{text}");
        }
        for text in ["", "64", "256", "-1", "AF", "AF44", "AF01", "AF51", "CS8", "CS", "EF1", "4x", "\u{663}"] {
            assert_eq!(text.parse::<Dscp>(), Err(NoDscp), "{text}");
        }
    }

    // OPS-09
    #[test]
    fn the_code_point_stands_above_the_ecn_field_and_leaves_it_alone() {
        for number in 0..64 {
            for ecn in (0..4).map(Ecn::from_bits) {
                let byte = TrafficClass::new(Dscp(number), ecn).byte();
                assert_eq!((byte >> 2, Ecn::from_bits(byte)), (number, ecn));
            }
        }
    }

    // OPS-09, RTCP-15: read from the IP header by somebody else's socket.
    #[test]
    fn a_code_point_is_sent_beside_the_ecn_field_and_runs_do_not_mix_them() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _entered = runtime.enter();
        let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        for (bound, through) in [(v4, v4), (v6, v6), (any, v4), (any, v6)] {
            let sender = MediaSocket::register(MediaSocket::bind(bound, 0).unwrap()).unwrap();
            let receiver = ClassReader::bind(through);
            let tuple = TransportTuple::udp(receiver.socket.local_addr().unwrap(), None);
            let [audio, video] = ["EF", "AF42"].map(|name| name.parse::<Dscp>().unwrap());
            let classes = [
                TrafficClass::new(audio, Ecn::NotEct),
                TrafficClass::new(video, Ecn::Ect1),
                TrafficClass::new(video, Ecn::Ect1),
                TrafficClass::new(video, Ecn::NotEct),
                TrafficClass::DEFAULT,
            ];
            let mut batch = SendBatch::new(sender.is_ipv6());
            for class in classes {
                batch.spare()[..100].fill(1);
                batch.commit_marked(tuple, 100, class);
            }
            assert_eq!((batch.messages(), sender.send(&mut batch).sent), (4, 5));
            let read: Vec<u8> = classes.iter().map(|_| receiver.read()).collect();
            assert_eq!(read, [0xb8, 0x91, 0x91, 0x90, 0], "{bound} to {through}");
        }
    }

    /// A socket that tells the traffic class of each datagram, by the system's calls alone.
    struct ClassReader {
        socket: UdpSocket,
    }

    impl ClassReader {
        fn bind(ip: IpAddr) -> ClassReader {
            let socket = UdpSocket::bind((ip, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let (level, name) = match ip {
                IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVTOS),
                IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
            };
            let on: libc::c_int = 1;
            // SAFETY: the option value is a live c_int and its size is given.
            let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), 4) };
            assert_eq!(set, 0);
            ClassReader { socket }
        }

        /// Of the next datagram.
        fn read(&self) -> u8 {
            let (mut data, mut control) = ([0u8; 2048], [0usize; 8]);
            let mut iovec = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
            // SAFETY: all-zero bytes are a valid value of the plain-data type.
            let mut header: libc::msghdr = unsafe { mem::zeroed() };
            (header.msg_iov, header.msg_iovlen) = (&raw mut iovec, 1);
            (header.msg_control, header.msg_controllen) =
                (control.as_mut_ptr().cast(), mem::size_of_val(&control) as _);
            // SAFETY: the header points to buffers that live through the call; the kernel writes whole control messages, of
            // which CMSG_FIRSTHDR gives the first or none.
            unsafe {
                assert!(libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, 0) > 0);
                let message = libc::CMSG_FIRSTHDR(&raw const header);
                assert!(!message.is_null());
                // A byte of IPv4, an int of IPv6.
                match (*message).cmsg_level {
                    libc::IPPROTO_IP => *libc::CMSG_DATA(message),
                    _ => ptr::read_unaligned(libc::CMSG_DATA(message).cast::<libc::c_int>()) as u8,
                }
            }
        }
    }
}
