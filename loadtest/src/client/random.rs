//! Numbers that nobody can guess.

use super::error::ClientError;

/// A random number that is not 0.
pub(crate) fn random_u32() -> Result<u32, ClientError> {
    let mut bytes = [0; 4];
    openssl::rand::rand_bytes(&mut bytes).map_err(|error| ClientError::Crypto(error.to_string()))?;
    Ok(u32::from_be_bytes(bytes).max(1))
}
