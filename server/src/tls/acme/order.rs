//! One order from the account to the certificate (RFC 8555 §7.4).

use std::fmt::Display;
use std::io;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem,
    RetryPolicy,
};
use openssl::error::ErrorStack;
use openssl::x509::X509;

use super::AcmeOrder;
use super::client::Client;
use super::store::Store;
use crate::tls::acceptor::Challenges;
use crate::tls::identity::{Identity, Unusable};
use crate::tls::make::{self, MakeError};

/// The authority validates and signs in this time, or the order is given up.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(90));

/// The authority does not know the account any more (RFC 8555 §6.7).
const NO_SUCH_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    /// By the authority.
    #[error("the certificate authority refused: {0}")]
    Refused(String),
    /// It cannot be reached, or does not answer as RFC 8555 says.
    #[error("the certificate authority does not answer as it should: {0}")]
    Away(String),
    /// The state folder.
    #[error("{what} cannot be kept: {source}")]
    Store {
        /// What could not be written.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// OpenSSL.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// What came is no certificate of the request.
    #[error("the certificate that was obtained: {0}")]
    Unusable(#[from] Unusable),
}

impl From<Error> for OrderError {
    fn from(error: Error) -> OrderError {
        match error {
            Error::Api(problem) => OrderError::Refused(problem.to_string()),
            error => OrderError::Away(error.to_string()),
        }
    }
}

impl From<ErrorStack> for OrderError {
    fn from(error: ErrorStack) -> OrderError {
        OrderError::Make(error.into())
    }
}

/// Obtains a certificate, and keeps it. The answers to the challenges stay where they were placed.
pub(super) async fn obtain(wanted: &AcmeOrder, challenges: &Challenges) -> Result<Identity, OrderError> {
    let store = Store::of(wanted);
    let identifiers: Vec<_> = wanted.domains.iter().map(|domain| Identifier::Dns(domain.clone())).collect();
    let request = NewOrder::new(&identifiers);
    let account = account(wanted, &store).await?;
    let mut order = match account.new_order(&request).await {
        Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(NO_SUCH_ACCOUNT) => {
            new_account(wanted, &store).await?.new_order(&request).await?
        }
        order => order?,
    };
    answer(&mut order, challenges).await?;
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready | OrderStatus::Valid) => {}
        Ok(_) | Err(Error::Api(_)) => return Err(OrderError::Refused(why(&mut order).await)),
        Err(error) => return Err(error.into()),
    }
    let (key, csr) = make::request(&wanted.domains)?;
    order.finalize_csr(&csr).await?;
    let chain_pem = order.poll_certificate(&PATIENCE).await?;
    let key_pem = key.private_key_to_pem_pkcs8()?;
    let chain = X509::stack_from_pem(chain_pem.as_bytes())?;
    let identity = Identity::new(chain, key)?;
    let kept = store.keep_certificate(&key_pem, &chain_pem);
    kept.map_err(|source| OrderError::Store { what: "the certificate", source })?;
    Ok(identity)
}

async fn account(wanted: &AcmeOrder, store: &Store) -> Result<Account, OrderError> {
    match store.account() {
        Some(kept) => Ok(Account::builder_with_http(Box::new(Client::new()?)).from_credentials(kept).await?),
        None => new_account(wanted, store).await,
    }
}

/// Makes an account, and agrees to the authority's terms of service, as who names it in the configuration does.
async fn new_account(wanted: &AcmeOrder, store: &Store) -> Result<Account, OrderError> {
    let request = NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
    let builder = Account::builder_with_http(Box::new(Client::new()?));
    let (account, credentials) = builder.create(&request, wanted.directory.clone(), None).await?;
    let kept = store.keep_account(&credentials);
    kept.map_err(|source| OrderError::Store { what: "the account", source })?;
    Ok(account)
}

/// Places the answers to all challenges that are open, and says so.
async fn answer(order: &mut Order, challenges: &Challenges) -> Result<(), OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            // Of a former order.
            AuthorizationStatus::Valid => continue,
            status => return Err(OrderError::Refused(format!("an authorization is {status:?}"))),
        }
        let Identifier::Dns(name) = authorization.identifier().identifier.clone() else {
            return Err(OrderError::Away("an authorization for something else than a name".to_owned()));
        };
        let Some(mut challenge) = authorization.challenge(ChallengeType::TlsAlpn01) else {
            return Err(OrderError::Refused(format!("it has no tls-alpn-01 challenge for {name}")));
        };
        challenges.answer(&name, make::challenge(&name, challenge.key_authorization().digest().as_ref())?);
        challenge.set_ready().await.map_err(|error| match error {
            // It has tried already, and says so at once.
            Error::Api(problem) => OrderError::Refused(failed(&name, &problem)),
            error => error.into(),
        })?;
    }
    Ok(())
}

/// What the authority says of the challenges that failed.
async fn why(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let failures = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        reasons.extend(failures.map(|problem| failed(state.identifier(), problem)));
    }
    match reasons.is_empty() {
        true => "the order is invalid".to_owned(),
        false => reasons.join("; "),
    }
}

/// What the authority says of the challenge for one name.
fn failed(name: impl Display, problem: &Problem) -> String {
    format!("{name}: {}", problem.detail.as_deref().unwrap_or("the challenge failed"))
}
