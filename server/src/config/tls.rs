//! How the public listener speaks TLS, from the settings: a certificate from files, a self-signed one, or one by ACME.

use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use super::addresses::{Network, is_loopback};
use super::http_values::HostName;
use super::public_host::{FixedHost, Host, PublicHost};
use super::resolve::{Contradiction, refuse};
use super::settings::Settings;
use super::values::ServiceUrl;
use crate::tls::acme::{AcmeOrder, PRODUCTION, STAGING};
use crate::tls::identity::Identity;
use crate::tls::make::Names;
use crate::tls::{self, Tls, TlsSettings, TlsSource};

/// The settings of TLS, with what deserves a word in the log; `None` for clear text. Files are read.
pub(super) fn resolve(
    settings: &Settings,
    network: &impl Network,
) -> Result<(Option<TlsSettings>, Vec<String>), Contradiction> {
    let is_given = |path: &Path| !path.as_os_str().is_empty();
    let (certificate, key) = (is_given(&settings.tls_cert), is_given(&settings.tls_key));
    if certificate != key {
        let (given, missing) = if certificate { ("tls_cert", "tls_key") } else { ("tls_key", "tls_cert") };
        return refuse(format!("{given}: given without {missing}\n  allowed: both, or neither"));
    }
    let sources = [
        ("tls_cert", certificate),
        ("tls_self_signed", settings.tls_self_signed),
        ("acme_domain", !settings.acme_domain.is_empty()),
    ];
    let given: Vec<_> = sources.iter().filter(|(_, is_given)| *is_given).map(|(key, _)| *key).collect();
    let source = match given[..] {
        [] => {
            check_without(settings)?;
            return Ok((None, Vec::new()));
        }
        ["tls_cert"] => TlsSource::Files(Identity::read(&settings.tls_cert, &settings.tls_key).map_err(Contradiction)?),
        ["tls_self_signed"] => TlsSource::SelfSigned(names(settings, network)),
        ["acme_domain"] => TlsSource::Acme(acme_order(settings)?),
        _ => {
            return refuse(format!(
                "{}: each says where the certificate comes from: drop all but one",
                given.join(", ")
            ));
        }
    };
    if settings.hsts > 0 && settings.tls_self_signed {
        return refuse(format!(
            "hsts: {} with tls_self_signed: browsers would let nobody in past the warning\n  allowed: 0, or a certificate \
             that browsers trust",
            settings.hsts
        ));
    }
    let settings_of_tls = TlsSettings { source, hsts: settings.hsts };
    if let Err(error) = Tls::check(&settings_of_tls) {
        return refuse(format!("tls_cert: {}: {error}", settings.tls_cert.display()));
    }
    let warnings = tls::warning(&settings_of_tls.source, SystemTime::now()).into_iter().collect();
    Ok((Some(settings_of_tls), warnings))
}

/// Without TLS its other settings mean nothing, which is a mistake and no choice.
fn check_without(settings: &Settings) -> Result<(), Contradiction> {
    let needs = |key: &str, value: String| {
        refuse(format!(
            "{key}: {value} without TLS\n  allowed: with tls_cert and tls_key, tls_self_signed or acme_domain"
        ))
    };
    if settings.hsts > 0 {
        return needs("hsts", settings.hsts.to_string());
    }
    if settings.http_redirect.0.is_some() {
        return needs("http_redirect", settings.http_redirect.to_string());
    }
    Ok(())
}

fn acme_order(settings: &Settings) -> Result<AcmeOrder, Contradiction> {
    if settings.acme_state.as_os_str().is_empty() {
        return refuse(
            "acme_state: missing, and acme_domain is given\n  allowed: a folder that the server may write, which keeps \
             account and certificate over restarts"
                .to_owned(),
        );
    }
    let directory = match (&settings.acme_directory, settings.acme_staging) {
        (ServiceUrl(Some(_)), true) => {
            return refuse("acme_directory and acme_staging: drop one of the two".to_owned());
        }
        (ServiceUrl(Some(url)), false) => url.clone(),
        (ServiceUrl(None), true) => STAGING.to_owned(),
        (ServiceUrl(None), false) => PRODUCTION.to_owned(),
    };
    let domains = settings.acme_domain.iter().map(|HostName(name)| name.clone()).collect();
    Ok(AcmeOrder { domains, directory, state: settings.acme_state.clone() })
}

/// Whom a self-signed certificate is for: all names and addresses by which a client on the network may ask for this machine.
fn names(settings: &Settings, network: &impl Network) -> Names {
    let mut names = Names::default();
    let mut add = |host: Host| match host {
        Host::Name(name) if !names.dns.contains(&name) => names.dns.push(name),
        Host::Address(ip) if !names.ip.contains(&ip) && !ip.is_unspecified() => names.ip.push(ip),
        Host::Name(_) | Host::Address(_) => {}
    };
    let public = settings.public_url.0.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
    let public = public.and_then(|url| url.host().map(|host| host.trim_matches(['[', ']']).to_ascii_lowercase()));
    if let Some(public) = public {
        add(public.parse::<IpAddr>().map_or(Host::Name(public), Host::Address));
    }
    settings.http_hosts.iter().for_each(|HostName(name)| add(Host::Name(name.clone())));
    if let Some(own) = host_name() {
        // As multicast DNS has it (RFC 6762 §3).
        if !own.contains('.') {
            add(Host::Name(format!("{own}.local")));
        }
        add(Host::Name(own));
    }
    add(Host::Name("localhost".to_owned()));
    add(Host::Address(settings.http_listen.ip()));
    for public in &settings.public_ip {
        // Which address a STUN server sees is not known yet.
        if let PublicHost::Fixed(FixedHost { host, .. }) = public {
            add(host.clone());
        }
    }
    let found = network.interfaces().unwrap_or_default().into_iter().map(|found| found.address);
    // Those of the network first: people read the list.
    let (loopback, others): (Vec<_>, Vec<_>) = found.partition(|ip| is_loopback(*ip));
    others.into_iter().chain(loopback).for_each(|ip| add(Host::Address(ip)));
    names
}

/// The name of this machine, if it is one that a certificate may have.
fn host_name() -> Option<String> {
    let HostName(name) = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().parse().ok()?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::addresses::InterfaceAddress;
    use super::super::discovery::AskError;
    use super::*;

    struct Lan;

    impl Network for Lan {
        fn interfaces(&self) -> std::io::Result<Vec<InterfaceAddress>> {
            let found = [("lo", "127.0.0.1"), ("lo", "::1"), ("wlan0", "192.0.2.7"), ("wlan0", "2001:db8::7")];
            let address = |text: &str| text.parse().unwrap();
            Ok(found
                .map(|(name, text)| InterfaceAddress { interface: name.to_owned(), address: address(text) })
                .to_vec())
        }
        fn lookup(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
            Err(std::io::Error::other("no network"))
        }
        fn ask(&self, _: SocketAddr, _: IpAddr) -> Result<IpAddr, AskError> {
            panic!("no STUN server is configured")
        }
    }

    fn refused(settings: &Settings) -> String {
        resolve(settings, &Lan).unwrap_err().0
    }

    fn self_signed() -> Settings {
        Settings { tls_self_signed: true, ..Settings::default() }
    }

    #[test]
    fn a_self_signed_certificate_is_for_every_name_and_address_of_the_machine() {
        let settings = Settings {
            public_url: "https://Live.example:8443".parse().unwrap(),
            http_hosts: vec!["studio.example".parse().unwrap()],
            public_ip: vec!["203.0.113.7:31000".parse().unwrap(), "media.example".parse().unwrap()],
            ..self_signed()
        };
        let Some(TlsSettings { source: TlsSource::SelfSigned(names), .. }) = resolve(&settings, &Lan).unwrap().0 else {
            panic!("no self-signed certificate")
        };
        for name in ["live.example", "studio.example", "localhost", "media.example"] {
            assert!(names.dns.iter().any(|found| found == name), "{name}: {names:?}");
        }
        for ip in ["127.0.0.1", "::1", "192.0.2.7", "2001:db8::7", "203.0.113.7"] {
            assert!(names.ip.contains(&ip.parse().unwrap()), "{ip}: {names:?}");
        }
    }

    #[test]
    fn half_a_pair_two_sources_and_switches_without_tls_are_refused_with_what_is_allowed() {
        let pair = |certificate: &str, key: &str| Settings {
            tls_cert: certificate.into(),
            tls_key: key.into(),
            ..Settings::default()
        };
        assert!(refused(&pair("c.pem", "")).starts_with("tls_cert: given without tls_key\n  allowed: both"));
        assert!(refused(&pair("", "k.pem")).starts_with("tls_key: given without tls_cert\n  allowed: both"));
        let message = refused(&pair("/nonexistent/c.pem", "/nonexistent/k.pem"));
        assert!(message.starts_with("tls_cert: /nonexistent/c.pem: No such file"), "{message}");
        assert!(message.contains("\n  allowed: a readable PEM file"), "{message}");
        let both = Settings { tls_self_signed: true, ..pair("c.pem", "k.pem") };
        assert!(refused(&both).starts_with("tls_cert, tls_self_signed: "));
        assert!(
            refused(&Settings { hsts: 60, ..Settings::default() }).starts_with("hsts: 60 without TLS\n  allowed: ")
        );
        let redirect = Settings { http_redirect: "127.0.0.1:80".parse().unwrap(), ..Settings::default() };
        assert!(refused(&redirect).starts_with("http_redirect: 127.0.0.1:80 without TLS"));
        assert!(refused(&Settings { hsts: 60, ..self_signed() }).starts_with("hsts: 60 with tls_self_signed"));
    }

    #[test]
    fn an_acme_order_needs_a_folder_and_one_directory() {
        let acme_domain = vec!["media.example".parse().unwrap()];
        let good = Settings { acme_domain, acme_state: "/var/lib/sluice".into(), ..Settings::default() };
        assert!(refused(&Settings { acme_state: "".into(), ..good.clone() }).starts_with("acme_state: missing"));
        let directory = |settings: &Settings| match resolve(settings, &Lan).unwrap().0.unwrap().source {
            TlsSource::Acme(order) => order.directory,
            other => panic!("{other:?}"),
        };
        assert_eq!(directory(&good), PRODUCTION);
        assert_eq!(directory(&Settings { acme_staging: true, ..good.clone() }), STAGING);
        let own = Settings { acme_directory: "https://ca.example/dir".parse().unwrap(), ..good };
        assert_eq!(directory(&own), "https://ca.example/dir");
        assert!(refused(&Settings { acme_staging: true, ..own }).starts_with("acme_directory and acme_staging"));
    }
}
