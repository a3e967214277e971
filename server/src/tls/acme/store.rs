//! The folder that keeps an account and a certificate over restarts, readable by nobody else.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use instant_acme::AccountCredentials;

use super::AcmeOrder;
use crate::tls::identity::Identity;

const ACCOUNT: &str = "account.json";
/// The key and the chain in one file: whoever reads it has two that belong together.
const CERTIFICATE: &str = "certificate.pem";

/// What is kept of one authority; a test server's account and certificates are none of the real one.
pub(super) struct Store {
    folder: PathBuf,
}

impl Store {
    pub(super) fn of(order: &AcmeOrder) -> Store {
        let authority = order.directory.split_once("://").map_or(order.directory.as_str(), |(_, rest)| rest);
        // Distinct names for distinct URLs are all that is needed; no part of one leaves the folder.
        let name: String = authority
            .trim_end_matches('/')
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' })
            .collect();
        Store { folder: order.state.join(name.trim_start_matches('.')) }
    }

    /// Makes the folder, and tries to write there.
    pub(super) fn prepare(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let probe = self.folder.join(format!(".{}", std::process::id()));
        private(&probe)?;
        fs::remove_file(probe)
    }

    pub(super) fn account(&self) -> Option<AccountCredentials> {
        serde_json::from_slice(&fs::read(self.folder.join(ACCOUNT)).ok()?).ok()
    }

    pub(super) fn keep_account(&self, account: &AccountCredentials) -> io::Result<()> {
        self.write(ACCOUNT, &serde_json::to_vec(account)?)
    }

    pub(super) fn certificate(&self) -> Option<Identity> {
        let pem = fs::read(self.folder.join(CERTIFICATE)).ok()?;
        Identity::from_pem(&pem, &pem).ok()
    }

    pub(super) fn keep_certificate(&self, key_pem: &[u8], chain_pem: &str) -> io::Result<()> {
        self.write(CERTIFICATE, &[key_pem, chain_pem.as_bytes()].concat())
    }

    /// All of it or nothing, whenever the machine goes down.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let beside = self.folder.join(format!("{name}.new"));
        let mut file = private(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(beside, self.folder.join(name))
    }
}

fn private(path: &PathBuf) -> io::Result<fs::File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Component;
    use std::time::Duration;

    use super::*;
    use crate::tls::make::{self, Names};

    #[test]
    fn a_certificate_is_kept_for_its_authority_and_read_by_nobody_else() {
        let state = std::env::temp_dir().join(format!("sluice-{}-acme-store", std::process::id()));
        let order = |directory: &str| AcmeOrder {
            domains: vec!["media.example".to_owned()],
            directory: directory.to_owned(),
            state: state.clone(),
        };
        let names = Names { dns: vec!["media.example".to_owned()], ip: Vec::new() };
        let made = make::self_signed(&names, Duration::from_secs(86_400)).unwrap();
        let (key, chain) = (made.key().private_key_to_pem_pkcs8().unwrap(), made.chain()[0].to_pem().unwrap());
        let store = Store::of(&order("https://ca.example/directory"));
        store.prepare().unwrap();
        store.keep_certificate(&key, std::str::from_utf8(&chain).unwrap()).unwrap();
        assert_eq!(order("https://ca.example/directory").stored(), Some(made));
        assert_eq!(order("https://test.ca.example/directory").stored(), None, "of another authority");
        let wider = AcmeOrder {
            domains: vec!["media.example".to_owned(), "more.example".to_owned()],
            ..order("https://ca.example/directory")
        };
        assert_eq!(wider.stored(), None, "it has not all names");
        let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.folder), 0o700);
        let files: Vec<_> = fs::read_dir(&store.folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(mode(&files[0]), 0o600);
        for directory in ["https://../../etc", "https:///", "nothing"] {
            let folder = Store::of(&order(directory)).folder;
            let inside: Vec<_> = folder.strip_prefix(&state).unwrap().components().collect();
            assert!(matches!(inside[..], [] | [Component::Normal(_)]), "{folder:?}");
        }
        fs::remove_dir_all(state).unwrap();
    }
}
