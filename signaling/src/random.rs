//! Random names and numbers, all from OpenSSL's generator.

use openssl::error::ErrorStack;
use openssl::rand::rand_bytes;

/// `N` random bytes.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], ErrorStack> {
    let mut bytes = [0; N];
    rand_bytes(&mut bytes)?;
    Ok(bytes)
}

/// `N` random bytes as lower-case hexadecimal digits: 8 bits a byte, safe in URLs, ETags and SDP.
pub(crate) fn hex<const N: usize>() -> Result<String, ErrorStack> {
    Ok(bytes::<N>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A random number of 64 bits.
pub(crate) fn number() -> Result<u64, ErrorStack> {
    Ok(u64::from_ne_bytes(bytes()?))
}

/// `N` different SSRCs, none of them 0 (some stacks take 0 for "none").
pub(crate) fn ssrcs<const N: usize>() -> Result<[u32; N], ErrorStack> {
    let mut ssrcs = [0; N];
    for index in 0..N {
        while ssrcs[index] == 0 || ssrcs[..index].contains(&ssrcs[index]) {
            ssrcs[index] = u32::from_ne_bytes(bytes()?);
        }
    }
    Ok(ssrcs)
}
