//! What an answer has to look like.

use std::collections::BTreeSet;

use super::super::case::Case;
use super::super::description::{Description, Section};
use super::super::probe::Role;
use super::super::row::{Miss, Row, Verdict, demand, fail, not_applicable, rows};
use super::offers::answers;

/// A buffer for answers of a widely used client.
const ROOM: usize = 8192;

pub(super) const ROWS: &[Row] = rows! {
    "WHIP-07" Must "RFC 9725 §4.3.2" "The answer holds the server's candidates: none is trickled later" candidates;
    "WHIP-28" Must "RFC 9725 §4.4.1" "rtcp-mux stands in every section that is taken" rtcp_mux;
    "WHEP-17" Should "RFC 5576 §4, RFC 9143 §9.2" "The answer to a viewer declares the SSRCs that are sent, or takes the MID extension" declared_ssrcs;
    "SDP-02" Must "RFC 8866 §5" "The answer begins with v=0 and has o=, s= and t=" required_lines;
    "SDP-08" Must "RFC 8827 §6.5" "The answer has no a=crypto" no_crypto;
    "SDP-10" Must "RFC 3264 §6" "The answer has as many sections as the offer, in its order, with its mids" same_sections;
    "SDP-11" Must "RFC 9143 §7.3" "All sections that are taken are in one BUNDLE group" bundle;
    "SDP-14" Must "RFC 9143 §7.3" "A section that is taken has a port other than 0, and no bundle-only" ports;
    "SDP-15" Must "RFC 9429 §5.3.1" "Each section that is taken has a mid, credentials, a fingerprint, a setup, and c=" whole_sections;
    "SDP-19" Must "RFC 8839 §5.4, RFC 8445 §5.3" "ICE credentials are long enough, of ice-chars, and new for each session" own_credentials;
    "SDP-20" Must "RFC 3264 §6.1, RFC 8285 §6" "Formats and extension ids are those of the offer, under their meaning" subset;
    "SDP-21" Must "RFC 4585 §4.2" "No feedback that was not offered" feedback_subset;
    "SDP-23" Must "RFC 4588 §8" "An RTX format in the answer names one that is in it" rtx;
    "SDP-28" Must "RFC 8839 §5.3" "ice-lite stands at session level" ice_lite;
    "SDP-29" Should "practice" "The first candidate of each section that has some is UDP, host, and IPv4 where there is one" candidate_order;
    "SDP-30" Should "practice" "The answer has less than 8 KiB" small;
    "SDP-31" Should "practice" "No loopback, link-local or unspecified address is a candidate, but of a server on loopback" usable_addresses;
    "SDP-32" Must "RFC 3264 §5" "o= has a session id of its own for each session, and 64 bits hold it" origins;
    "ICE-04" Must "RFC 8839 §5.1, RFC 8445 §5.1.2" "Candidates are well-formed, of component 1, with priorities that differ" candidate_lines;
    "DTLS-06" Must "RFC 8122 §5" "The fingerprint is of SHA-256 or better, in upper-case hex, as long as its hash" fingerprint;
    "SRTP-13" Must "RFC 6904 §4" "No encrypted header extension that was not offered" no_encrypted_extensions;
    "COD-02" Must "RFC 7587 §7" "Opus is opus/48000/2" opus;
};

fn live(answer: &Description) -> Result<Vec<&Section>, Miss> {
    let live: Vec<&Section> = answer.live().collect();
    if live.is_empty() { fail("no section of the offer is taken") } else { Ok(live) }
}

async fn candidates(case: &Case<'_>) -> Verdict {
    let mut seen = 0;
    for (_, _, answer, _) in answers(case).await? {
        let count = answer.everywhere("candidate").len();
        demand(count > 0, || "the answer has no candidate".into())?;
        seen += count;
    }
    Ok(format!("{seen} candidate lines"))
}

async fn rtcp_mux(case: &Case<'_>) -> Verdict {
    for (_, _, answer, _) in answers(case).await? {
        for section in live(&answer)? {
            demand(section.has("rtcp-mux"), || format!("section {} has no rtcp-mux", section.mid()))?;
        }
    }
    Ok("in every section".into())
}

async fn declared_ssrcs(case: &Case<'_>) -> Verdict {
    const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
    for (_, _, answer, _) in answers(case).await?.into_iter().filter(|(role, ..)| *role == Role::Viewer) {
        for section in live(&answer)? {
            let told = section.value("ssrc").is_some() || section.extension(MID).is_some();
            demand(told, || format!("section {} has neither", section.mid()))?;
        }
    }
    case.probe.options.url(Role::Viewer, 0)?;
    Ok("told".into())
}

async fn required_lines(case: &Case<'_>) -> Verdict {
    for (_, _, answer, text) in answers(case).await? {
        demand(text.starts_with("v=0"), || format!("it begins with {:?}", text.chars().take(8).collect::<String>()))?;
        for line in ["o=", "s=", "t="] {
            demand(answer.session.iter().any(|known| known.starts_with(line)), || format!("it has no {line}"))?;
        }
    }
    Ok("v=0, o=, s=, t=".into())
}

async fn no_crypto(case: &Case<'_>) -> Verdict {
    for (_, _, answer, _) in answers(case).await? {
        demand(answer.everywhere("crypto").is_empty(), || "the answer has a=crypto".into())?;
    }
    Ok("none".into())
}

async fn same_sections(case: &Case<'_>) -> Verdict {
    for (_, offer, answer, _) in answers(case).await? {
        let shape = |of: &Description| -> Vec<(String, String, String)> {
            let one = |s: &Section| (s.medium().to_owned(), s.protocol().to_owned(), s.mid().to_owned());
            of.sections.iter().map(one).collect()
        };
        let (offered, answered) = (shape(&offer), shape(&answer));
        demand(offered == answered, || format!("{offered:?} was answered with {answered:?}"))?;
    }
    Ok("same media, protocols and mids".into())
}

async fn bundle(case: &Case<'_>) -> Verdict {
    for (_, _, answer, _) in answers(case).await? {
        let group = answer.bundle();
        let mids: Vec<&str> = live(&answer)?.iter().map(|section| section.mid()).collect();
        demand(mids.iter().all(|mid| group.contains(mid)), || format!("BUNDLE {group:?}, but {mids:?} are live"))?;
    }
    Ok("one group".into())
}

async fn ports(case: &Case<'_>) -> Verdict {
    for (_, _, answer, _) in answers(case).await? {
        demand(answer.live().count() == answer.sections.len(), || "a section that can be served has port 0".into())?;
        let wrong = answer.sections.iter().any(|section| section.has("bundle-only"));
        demand(!wrong, || "a section has bundle-only".into())?;
    }
    Ok("no port 0".into())
}

async fn whole_sections(case: &Case<'_>) -> Verdict {
    for (_, _, answer, _) in answers(case).await? {
        for section in live(&answer)? {
            for name in ["mid", "ice-ufrag", "ice-pwd", "fingerprint", "setup"] {
                demand(answer.of(section, name).is_some(), || format!("section {} has no {name}", section.mid()))?;
            }
            let connection = section.lines.iter().chain(&answer.session).any(|line| line.starts_with("c="));
            demand(connection, || format!("section {} has no c=", section.mid()))?;
        }
    }
    Ok("whole".into())
}

async fn own_credentials(case: &Case<'_>) -> Verdict {
    let mut known = BTreeSet::new();
    for _ in 0..2 {
        for (_, _, answer, _) in answers(case).await? {
            for (name, least) in [("ice-ufrag", 4), ("ice-pwd", 22)] {
                let value = answer.first(name).unwrap_or_default().to_owned();
                let chars = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
                let long = (least..=256).contains(&value.len());
                demand(chars && long, || format!("{name} has {} characters: {value}", value.len()))?;
                demand(known.insert(value), || format!("two sessions have the same {name}"))?;
            }
        }
    }
    Ok(format!("{} values, all different", known.len()))
}

async fn subset(case: &Case<'_>) -> Verdict {
    for (_, offer, answer, _) in answers(case).await? {
        for (offered, section) in offer.sections.iter().zip(&answer.sections).filter(|(_, taken)| taken.port() != "0") {
            for format in section.formats() {
                let (theirs, ours) = (section.encoding(format), offered.encoding(format));
                let same = theirs.zip(ours).is_some_and(|(theirs, ours)| theirs.eq_ignore_ascii_case(ours));
                demand(same, || format!("format {format} is {theirs:?}, and was {ours:?} in the offer"))?;
            }
            let new: Vec<_> = section.extensions().difference(&offered.extensions()).cloned().collect();
            demand(new.is_empty(), || format!("extensions that were not offered so: {new:?}"))?;
        }
    }
    Ok("a subset".into())
}

async fn feedback_subset(case: &Case<'_>) -> Verdict {
    for (_, offer, answer, _) in answers(case).await? {
        for (offered, section) in offer.sections.iter().zip(&answer.sections) {
            let new: Vec<_> = section.feedback().difference(&offered.feedback()).cloned().collect();
            demand(new.is_empty(), || format!("feedback that was not offered: {new:?}"))?;
        }
    }
    Ok("a subset".into())
}

async fn rtx(case: &Case<'_>) -> Verdict {
    let mut seen = 0;
    for (_, _, answer, _) in answers(case).await? {
        for section in live(&answer)? {
            for value in section.values("fmtp").filter(|value| value.contains("apt=")) {
                let apt = value.split("apt=").nth(1).unwrap_or_default();
                let apt: String = apt.chars().take_while(char::is_ascii_digit).collect();
                demand(section.formats().contains(&apt), || format!("a=fmtp:{value} names none of the section"))?;
                seen += 1;
            }
        }
    }
    if seen == 0 { not_applicable("no RTX is taken") } else { Ok(format!("{seen} RTX formats")) }
}

async fn ice_lite(case: &Case<'_>) -> Verdict {
    let mut lite = false;
    for (_, _, answer, _) in answers(case).await? {
        let inside = answer.sections.iter().any(|section| section.has("ice-lite"));
        demand(!inside, || "ice-lite stands in a section".into())?;
        lite |= answer.has("ice-lite");
    }
    if lite { Ok("at session level".into()) } else { not_applicable("the server is a full agent") }
}

async fn candidate_order(case: &Case<'_>) -> Verdict {
    for (_, _, answer, _) in answers(case).await? {
        let all = answer.everywhere("candidate");
        let v4 = all.iter().any(|line| line.split(' ').nth(4).is_some_and(|address| !address.contains(':')));
        for section in live(&answer)? {
            let Some(first) = section.value("candidate") else { continue };
            let words: Vec<&str> = first.split(' ').collect();
            let udp = words.get(2).is_some_and(|word| word.eq_ignore_ascii_case("udp"));
            let host = words.windows(2).any(|pair| pair == ["typ", "host"]);
            let family = !v4 || words.get(4).is_some_and(|address| !address.contains(':'));
            demand(udp && host && family, || format!("section {} begins with candidate:{first}", section.mid()))?;
        }
    }
    Ok("UDP host first".into())
}

async fn small(case: &Case<'_>) -> Verdict {
    let mut longest = 0;
    for (_, _, _, text) in answers(case).await? {
        longest = longest.max(text.len());
    }
    demand(longest < ROOM, || format!("{longest} bytes"))?;
    Ok(format!("{longest} bytes"))
}

async fn usable_addresses(case: &Case<'_>) -> Verdict {
    let urls = case.endpoints()?;
    if urls.iter().all(|(_, url)| crate::attack::is_loopback(url.as_str())) {
        return not_applicable("the server is on loopback");
    }
    for (_, _, answer, _) in answers(case).await? {
        for line in answer.everywhere("candidate") {
            let Some(Ok(address)) = line.split(' ').nth(4).map(str::parse::<std::net::IpAddr>) else { continue };
            let link_local = match address {
                std::net::IpAddr::V4(ip) => ip.is_link_local(),
                std::net::IpAddr::V6(ip) => ip.is_unicast_link_local(),
            };
            let usable = !address.is_loopback() && !address.is_unspecified() && !link_local;
            demand(usable, || format!("candidate:{line}"))?;
        }
    }
    Ok("usable ones only".into())
}

async fn origins(case: &Case<'_>) -> Verdict {
    let mut known = BTreeSet::new();
    for _ in 0..2 {
        for (_, _, answer, _) in answers(case).await? {
            let line = answer.session.iter().find(|line| line.starts_with("o=")).cloned().unwrap_or_default();
            let id = line.split(' ').nth(1).unwrap_or_default().to_owned();
            demand(id.parse::<u64>().is_ok(), || format!("{line:?} has no session id of 64 bits"))?;
            demand(known.insert(id), || format!("two sessions have {line:?}"))?;
        }
    }
    Ok(format!("{} ids, all different", known.len()))
}

async fn candidate_lines(case: &Case<'_>) -> Verdict {
    let mut seen = 0;
    for (_, _, answer, _) in answers(case).await? {
        for section in live(&answer)? {
            let mut priorities = BTreeSet::new();
            for line in section.values("candidate") {
                let words: Vec<&str> = line.split(' ').collect();
                let foundation = words[0];
                let ice_chars =
                    foundation.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
                demand((1..=32).contains(&foundation.len()) && ice_chars, || format!("the foundation of {line}"))?;
                demand(words.get(1) == Some(&"1"), || format!("the component of {line}"))?;
                let priority = words.get(3).and_then(|word| word.parse::<u32>().ok()).filter(|priority| *priority > 0);
                let port = words.get(5).is_some_and(|word| word.parse::<u16>().is_ok());
                demand(priority.is_some() && port && words.get(6) == Some(&"typ"), || line.to_owned())?;
                demand(priorities.insert(priority), || format!("the priority of {line} comes twice"))?;
                seen += 1;
            }
        }
    }
    Ok(format!("{seen} candidate lines"))
}

async fn fingerprint(case: &Case<'_>) -> Verdict {
    let mut hash = String::new();
    for (_, _, answer, _) in answers(case).await? {
        for value in answer.everywhere("fingerprint") {
            let (name, hex) = value.split_once(' ').unwrap_or((value, ""));
            let bytes = match name.to_ascii_lowercase().as_str() {
                "sha-256" => 32,
                "sha-384" => 48,
                "sha-512" => 64,
                _ => return fail(format!("a=fingerprint:{value}")),
            };
            let pairs: Vec<&str> = hex.split(':').collect();
            let upper =
                |pair: &&str| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
            demand(pairs.len() == bytes && pairs.iter().all(upper), || format!("a=fingerprint:{value}"))?;
            hash = name.to_owned();
        }
    }
    Ok(hash)
}

async fn no_encrypted_extensions(case: &Case<'_>) -> Verdict {
    for (_, _, answer, _) in answers(case).await? {
        let encrypted = answer.everywhere("extmap").into_iter().find(|value| value.contains("hdrext:encrypt"));
        demand(encrypted.is_none(), || format!("{encrypted:?}"))?;
    }
    Ok("none".into())
}

async fn opus(case: &Case<'_>) -> Verdict {
    for (_, _, answer, _) in answers(case).await? {
        let Some(audio) = answer.medium("audio") else { continue };
        let Some(format) = audio.format_of("opus") else { continue };
        let encoding = audio.encoding(format).unwrap_or_default();
        demand(encoding.eq_ignore_ascii_case("opus/48000/2"), || format!("a=rtpmap:{format} {encoding}"))?;
        return Ok(format!("a=rtpmap:{format} {encoding}"));
    }
    not_applicable("Opus is not taken")
}
