//! The certificate of the clients.

use media_core::Fingerprint;
use media_core::internals::dtls::{Certificate, DtlsContext};

use super::error::ClientError;
use super::options::ClientOptions;

/// The certificate and the DTLS settings that many clients share.
#[derive(Clone)]
pub struct Identity {
    fingerprint: Fingerprint,
    pub(crate) context: DtlsContext,
}

impl Identity {
    /// A fresh certificate, of the kind and with the profiles of these options.
    ///
    /// # Errors
    /// [`ClientError::Crypto`] if OpenSSL refuses.
    pub fn new(options: &ClientOptions) -> Result<Identity, ClientError> {
        let crypto = |error: media_core::internals::dtls::DtlsError| ClientError::Crypto(error.to_string());
        let certificate = Certificate::generate_with(options.certificate).map_err(crypto)?;
        let context = DtlsContext::with_profiles(&certificate, &options.srtp_profiles).map_err(crypto)?;
        Ok(Identity { fingerprint: certificate.fingerprint().clone(), context })
    }

    /// That of its certificate.
    pub(crate) fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The fingerprint for the offer.
    pub(super) fn announced(&self, options: &ClientOptions) -> Fingerprint {
        let mut fingerprint = self.fingerprint.clone();
        if options.corrupt_fingerprint {
            fingerprint.digest.iter_mut().for_each(|byte| *byte ^= 0xff);
        }
        fingerprint
    }
}
