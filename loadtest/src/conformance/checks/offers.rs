//! Which offers are taken, and which are refused as a whole.

use super::super::case::Case;
use super::super::description::Description;
use super::super::link::Link;
use super::super::probe::Role;
use super::super::row::{Miss, Row, Verdict, demand, not_applicable, rows};
use super::session::answer;
use crate::sdp::{Imitation, Setup};

pub(super) const ROWS: &[Row] = rows! {
    "WHIP-08" Must "RFC 9725 §4.2" "An offer to send is answered recvonly; one that sends nothing is refused" publisher_directions;
    "WHIP-09" Must "RFC 8866 §6.7" "An offer without direction is one of sendrecv" no_direction;
    "WHIP-10" Must "RFC 9725 §4.4.2" "Audio, video or both, in any order; a second of a kind is refused" tracks;
    "WHIP-11" Should "practice" "Sections without msid belong to the one stream" no_msid;
    "WHIP-12" Should "RFC 9725 §4.4.3" "A section that cannot be served refuses the whole offer" whole_refusal;
    "WHIP-27" Must "RFC 8842 §5, RFC 9725 §4.4.4" "setup actpass and active are answered, and the answer takes the other role" setup;
    "WHIP-29" May "RFC 9725 §4.8, RFC 8853 §5" "Simulcast is answered, with the layers that are received" simulcast;
    "WHIP-34" Must "RFC 8863 §3" "Offers without a usable candidate are taken" no_candidates;
    "WHEP-02" Must "WHEP §4.3.5" "An offer to receive is answered sendonly; one that only sends is refused" viewer_directions;
    "WHEP-03" Should "WHEP §4.6.2" "A second section of a kind is not served beside the first" one_stream;
    "WHEP-04" Should "RFC 9429 §5.3.1" "A viewer may ask for audio or for video alone" subsets;
    "SDP-01" Should "RFC 8866 §5" "Lines may end with LF alone, and the last one with nothing" line_ends;
    "SDP-03" Must "RFC 8866 §5.13" "Unknown attributes are ignored" unknown_attributes;
    "SDP-04" Must "RFC 8839 §5.4, RFC 8122 §5" "Credentials, fingerprint and setup may stand at session level" session_level;
    "SDP-05" Should "practice" "ICE options may be separated by commas" comma_options;
    "SDP-07" Must "RFC 8827 §6.5" "Sections without DTLS are refused" no_dtls;
    "SDP-12" Should "practice" "A mid in the BUNDLE group without a section is passed over" surplus_mid;
    "SDP-13" Must "RFC 9143 §7.3" "A section of port 0 is live if it is bundle-only, and else stays rejected" port_zero;
    "SDP-16" Must "RFC 9725 §4.4.1" "An offer without rtcp-mux is refused" no_rtcp_mux;
    "SDP-17" Must "RFC 8122 §5, RFC 8827 §6.5" "An offer without a fingerprint is refused" no_fingerprint;
    "SDP-18" Must "RFC 8839 §5.4" "An offer without usable ICE credentials is refused" bad_credentials;
    "SDP-22" Must "RFC 4585 §4.2" "rtcp-fb:* stands for all formats" wildcard_feedback;
    "SDP-25" Must "RFC 5761 §4" "Payload types from 35 to 63 are dynamic ones" low_payload_types;
    "SDP-26" Must "RFC 8866 §6.6" "Names of codecs are compared without case" codec_case;
    "SDP-40" May "RFC 8853 §5.3" "Of alternatives one is answered, and a layer that is paused as such" alternative_layers;
    "SDP-41" Should "practice" "Every layer is received: clients end if one of theirs is refused" all_layers;
    "SDP-42" Must "RFC 8853 §5.4" "Simulcast without the extension that names the layers is not answered" simulcast_without_rid;
    "DTLS-09" Must "RFC 8122 §5" "Of several fingerprints one of a known hash is enough to be answered" several_fingerprints;
    "TRK-18" Must "RFC 8838 §4" "An offer without the ICE option trickle is answered, too" no_trickle_option;
    "ICE-05" Must "RFC 8839 §5.1" "Candidates of any transport, with names, unknown types and extensions are passed over or taken" odd_candidates;
};

/// The offer without the lines that begin so.
pub(super) fn without(sdp: &str, beginnings: &[&str]) -> String {
    let kept = sdp.split_inclusive('\n').filter(|line| !beginnings.iter().any(|start| line.starts_with(start)));
    kept.collect()
}

/// The lines of the session, and of each section, with their `m=` line.
fn parts(sdp: &str) -> (String, Vec<String>) {
    let (mut session, mut sections) = (String::new(), Vec::<String>::new());
    for line in sdp.split_inclusive('\n') {
        match sections.last_mut() {
            _ if line.starts_with("m=") => sections.push(line.to_owned()),
            Some(section) => section.push_str(line),
            None => session.push_str(line),
        }
    }
    (session, sections)
}

/// The offer with only these of its sections, in this order; the BUNDLE group follows.
fn with_sections(sdp: &str, order: &[usize]) -> String {
    let (session, sections) = parts(sdp);
    let mids: Vec<String> = order.iter().map(usize::to_string).collect();
    let group = format!("a=group:BUNDLE {}", mids.join(" "));
    let session = session.replace("a=group:BUNDLE 0 1", &group);
    order.iter().fold(session, |text, index| text + sections.get(*index).map_or("", String::as_str))
}

async fn publisher_directions(case: &Case<'_>) -> Verdict {
    for direction in ["sendonly", "sendrecv"] {
        let change = |sdp: String| sdp.replace("a=sendonly\r\n", &format!("a={direction}\r\n"));
        let session = case.accepted(direction, Role::Publisher, change).await?;
        let others = session.answer.live().find(|section| section.direction() != "recvonly");
        demand(others.is_none(), || format!("{direction} was answered with {}", others.map_or("", |s| s.direction())))?;
    }
    for direction in ["recvonly", "inactive"] {
        let change = |sdp: String| sdp.replace("a=sendonly\r\n", &format!("a={direction}\r\n"));
        case.refused(direction, Role::Publisher, change).await?;
    }
    Ok("recvonly, or refused".into())
}

async fn no_direction(case: &Case<'_>) -> Verdict {
    let change = |sdp: String| without(&sdp, &["a=sendonly"]);
    let session = case.accepted("no direction", Role::Publisher, change).await?;
    let all = session.answer.live().all(|section| section.direction() == "recvonly");
    demand(all, || "the answer is not recvonly".into())?;
    Ok("recvonly".into())
}

async fn tracks(case: &Case<'_>) -> Verdict {
    for (what, order) in [("audio", &[0][..]), ("video", &[1]), ("video before audio", &[1, 0])] {
        let session = case.accepted(what, Role::Publisher, |sdp| with_sections(&sdp, order)).await?;
        let count = session.answer.sections.len();
        demand(count == order.len(), || format!("{what}: the answer has {count} sections"))?;
    }
    for (what, index) in [("two audio sections", 0), ("two video sections", 1)] {
        let change = |sdp: String| {
            let (session, sections) = parts(&sdp);
            let again = sections[index].replace(&format!("a=mid:{index}\r\n"), "a=mid:2\r\n");
            let again = without(&again, &["a=ssrc", "a=msid"]) + "a=msid:loadtest second\r\n";
            session.replace("BUNDLE 0 1", "BUNDLE 0 1 2") + &sections.concat() + &again
        };
        case.refused(what, Role::Publisher, change).await?;
    }
    Ok("one or both of them, and no two of a kind".into())
}

async fn no_msid(case: &Case<'_>) -> Verdict {
    case.accepted("no msid", Role::Publisher, |sdp| without(&sdp, &["a=msid"])).await?;
    case.accepted("msid of -", Role::Publisher, |sdp| sdp.replace("a=msid:loadtest", "a=msid:-")).await?;
    Ok("taken".into())
}

async fn whole_refusal(case: &Case<'_>) -> Verdict {
    let change = |sdp: String| sdp.replace("VP8/90000", "x-unknown/90000");
    let reply = case.refused("video of an unknown codec alone", Role::Publisher, change).await?;
    Ok(format!("refused by {}", reply.code()))
}

async fn setup(case: &Case<'_>) -> Verdict {
    let mut seen = Vec::new();
    for role in case.roles() {
        for (setup, wanted) in
            [(Setup::ActPass, &["active", "passive"][..]), (Setup::Active, &["passive"]), (Setup::Passive, &["active"])]
        {
            let offered = case.offer_with(role, setup, Imitation::Browser)?;
            let reply = case.post_offer(role, &offered).await?;
            // RFC 9725 knows no client that is passive only; they exist all the same.
            if setup == Setup::Passive && reply.is_client_error() {
                continue;
            }
            demand(reply.code() == 201, || format!("setup:{setup} was answered with {}", reply.shown()))?;
            let answered = Description::read(&reply.body).first("setup").unwrap_or_default().to_owned();
            if let Some(url) = reply.location() {
                case.send("DELETE", &url, &[], "").await?;
            }
            demand(wanted.contains(&answered.as_str()), || format!("setup:{setup} was answered with {answered}"))?;
            seen.push(format!("{setup} by {answered}"));
        }
    }
    Ok(seen.join(", "))
}

/// The publisher's video section with three layers.
fn layered(sdp: &str) -> String {
    let layers = "a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
                  a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n\
                  a=rid:l send\r\na=rid:m send\r\na=rid:h send\r\na=simulcast:send l;m;h\r\n";
    without(sdp, &["a=ssrc"]) + layers
}

/// The rids that an answer receives, in their order; the row does not apply without any.
async fn received_layers(case: &Case<'_>, change: impl Fn(String) -> String) -> Result<Vec<String>, Miss> {
    let session = case.accepted("simulcast", Role::Publisher, change).await?;
    let Some(answered) = session.answer.everywhere("simulcast").first().map(|value| (*value).to_owned()) else {
        return not_applicable("the answer has no simulcast: one layer is taken");
    };
    let listed = answered.strip_prefix("recv ").map(|list| list.split(';').map(str::to_owned).collect::<Vec<_>>());
    let rids: Vec<String> = listed.unwrap_or_default();
    demand(!rids.is_empty(), || format!("a=simulcast:{answered} receives nothing"))?;
    let lines = session.answer.everywhere("rid");
    for rid in &rids {
        let named = format!("{} recv", rid.trim_start_matches('~'));
        demand(lines.iter().any(|line| line.starts_with(&named)), || format!("there is no a=rid:{named}"))?;
    }
    let named = session.answer.everywhere("extmap").iter().any(|line| line.ends_with("sdes:rtp-stream-id"));
    demand(named, || "the answer has layers without the extension that names them".into())?;
    Ok(rids)
}

async fn simulcast(case: &Case<'_>) -> Verdict {
    let rids = received_layers(case, |sdp| layered(&sdp)).await?;
    let in_order = rids.is_sorted_by_key(|rid| ["l", "m", "h"].iter().position(|known| known == rid));
    let known = rids.iter().all(|rid| ["l", "m", "h"].contains(&rid.as_str()));
    demand(in_order && known, || format!("l;m;h was answered with {}", rids.join(";")))?;
    Ok(format!("recv {}", rids.join(";")))
}

async fn all_layers(case: &Case<'_>) -> Verdict {
    let rids = received_layers(case, |sdp| layered(&sdp)).await?;
    demand(rids.len() == 3, || format!("of three layers {} are received", rids.len()))?;
    Ok("three of three".into())
}

async fn alternative_layers(case: &Case<'_>) -> Verdict {
    let rids = received_layers(case, |sdp| layered(&sdp).replace("send l;m;h", "send l,m;~h")).await?;
    let told = rids.first().is_some_and(|rid| rid == "l" || rid == "m") && rids.get(1).is_none_or(|rid| rid == "~h");
    demand(told && rids.len() <= 2, || format!("l,m;~h was answered with {}", rids.join(";")))?;
    Ok(format!("recv {}", rids.join(";")))
}

async fn simulcast_without_rid(case: &Case<'_>) -> Verdict {
    let change = |sdp: String| without(&layered(&sdp), &["a=extmap:10", "a=extmap:11"]);
    let (_, reply) = case.post(Role::Publisher, change).await?;
    let answered = Description::read(&reply.body).everywhere("simulcast").len();
    demand(reply.code() != 201 || answered == 0, || "the answer has simulcast all the same".into())?;
    Ok(format!("{} without simulcast", reply.code()))
}

async fn no_candidates(case: &Case<'_>) -> Verdict {
    let lines = [
        "",
        "a=candidate:1 1 udp 2113937151 0f8fad5b-d9cb-469f-a165-70867728950e.local 5000 typ host\r\n",
        "a=candidate:2 1 tcp 1518280447 192.0.2.7 9 typ host tcptype active\r\n",
    ];
    for role in case.roles() {
        for candidates in lines {
            let change = |sdp: String| sdp.replace("a=mid:0\r\n", &format!("a=mid:0\r\n{candidates}"));
            case.accepted(&format!("candidates {candidates:?}"), role, change).await?;
        }
    }
    Ok("taken".into())
}

async fn viewer_directions(case: &Case<'_>) -> Verdict {
    for direction in ["recvonly", "sendrecv"] {
        let change = |sdp: String| sdp.replace("a=recvonly\r\n", &format!("a={direction}\r\n"));
        let session = case.accepted(direction, Role::Viewer, change).await?;
        let others = session.answer.live().find(|section| section.direction() != "sendonly");
        demand(others.is_none(), || format!("{direction} was answered with {}", others.map_or("", |s| s.direction())))?;
    }
    case.refused("sendonly", Role::Viewer, |sdp| sdp.replace("a=recvonly", "a=sendonly")).await?;
    Ok("sendonly, or refused".into())
}

async fn one_stream(case: &Case<'_>) -> Verdict {
    let change = |sdp: String| {
        let (session, sections) = parts(&sdp);
        let again = sections[1].replace("a=mid:1\r\n", "a=mid:2\r\n");
        session.replace("BUNDLE 0 1", "BUNDLE 0 1 2") + &sections.concat() + &again
    };
    let (_, reply) = case.post(Role::Viewer, change).await?;
    if reply.is_client_error() {
        return Ok(format!("refused by {}", reply.code()));
    }
    let answer = Description::read(&reply.body);
    let live = answer.live().filter(|section| section.medium() == "video" && section.direction() != "inactive");
    let live = live.count();
    demand(live <= 1, || format!("{live} video sections are served"))?;
    Ok("one is served".into())
}

async fn subsets(case: &Case<'_>) -> Verdict {
    for (what, order) in [("audio alone", &[0][..]), ("video alone", &[1])] {
        let session = case.accepted(what, Role::Viewer, |sdp| with_sections(&sdp, order)).await?;
        demand(session.answer.live().count() == 1, || format!("{what} is not served"))?;
    }
    Ok("served".into())
}

async fn line_ends(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        case.accepted("lines that end with LF", role, |sdp| sdp.replace("\r\n", "\n")).await?;
        case.accepted("no end of the last line", role, |sdp| sdp.trim_end().to_owned()).await?;
    }
    Ok("taken".into())
}

async fn unknown_attributes(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let change = |sdp: String| {
            let sdp = sdp.replace("a=group:", "a=x-unknown:1 2 3\r\na=x-flag\r\na=group:");
            sdp.replace("a=mid:1\r\n", "a=mid:1\r\na=x-unknown-too\r\n")
        };
        case.accepted("unknown attributes", role, change).await?;
    }
    Ok("ignored".into())
}

async fn session_level(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let change = |sdp: String| {
            let names = ["a=ice-ufrag", "a=ice-pwd", "a=ice-options", "a=fingerprint", "a=setup"];
            let own = |line: &&str| names.iter().any(|name| line.starts_with(name));
            let lines: Vec<&str> = sdp.split_inclusive('\n').filter(own).take(names.len()).collect();
            without(&sdp, &names).replacen("a=group:", &format!("{}a=group:", lines.concat()), 1)
        };
        let session = case.open(role, change).await?;
        Link::open(&session).await?.validate(case).await?;
        case.end(&session).await?;
    }
    Ok("taken, and checks with them are answered".into())
}

async fn comma_options(case: &Case<'_>) -> Verdict {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    case.accepted("ice2,trickle", role, |sdp| sdp.replace("trickle ice2", "ice2,trickle")).await?;
    Ok("taken".into())
}

async fn no_dtls(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        for protocol in ["RTP/AVP", "RTP/AVPF"] {
            let change = |sdp: String| {
                let sdp = sdp.replace("UDP/TLS/RTP/SAVPF", protocol);
                without(&sdp, &["a=fingerprint", "a=setup"])
            };
            case.refused(protocol, role, change).await?;
        }
        let change = |sdp: String| {
            let key = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n";
            let sdp = without(&sdp, &["a=fingerprint", "a=setup"]).replace("UDP/TLS/RTP/SAVPF", "RTP/SAVPF");
            sdp.replace("a=mid:", &format!("{key}a=mid:"))
        };
        case.refused("SDES", role, change).await?;
    }
    Ok("refused".into())
}

async fn surplus_mid(case: &Case<'_>) -> Verdict {
    let change = |sdp: String| with_sections(&sdp, &[1]).replace("BUNDLE 1", "BUNDLE 0 1");
    case.accepted("BUNDLE 0 1 with one section", Role::Publisher, change).await?;
    Ok("taken".into())
}

async fn port_zero(case: &Case<'_>) -> Verdict {
    let change =
        |sdp: String| sdp.replace("m=video 9", "m=video 0").replace("a=mid:1\r\n", "a=mid:1\r\na=bundle-only\r\n");
    let session = case.accepted("port 0 with bundle-only", Role::Publisher, change).await?;
    demand(session.answer.medium("video").is_some(), || "a bundle-only section was rejected".into())?;
    let change = |sdp: String| sdp.replace("m=video 9", "m=video 0").replace("BUNDLE 0 1", "BUNDLE 0");
    let session = case.accepted("a rejected section", Role::Publisher, change).await?;
    demand(session.answer.medium("video").is_none(), || "a rejected section was answered as live".into())?;
    Ok("live by bundle-only alone".into())
}

async fn no_rtcp_mux(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        case.refused("an offer without rtcp-mux", role, |sdp| without(&sdp, &["a=rtcp-mux"])).await?;
    }
    Ok("refused".into())
}

async fn no_fingerprint(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        case.refused("no fingerprint", role, |sdp| without(&sdp, &["a=fingerprint"])).await?;
        let weak = |sdp: String| {
            let line = format!("a=fingerprint:md5 {}\r\na=mid:", ["AB"; 16].join(":"));
            without(&sdp, &["a=fingerprint"]).replace("a=mid:", &line)
        };
        case.refused("a fingerprint of MD5 alone", role, weak).await?;
    }
    Ok("refused".into())
}

async fn bad_credentials(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        case.refused("no credentials", role, |sdp| without(&sdp, &["a=ice-ufrag", "a=ice-pwd"])).await?;
        let short = |sdp: String| {
            let line = |line: &str| match line.split_once(':') {
                Some(("a=ice-pwd", _)) => "a=ice-pwd:short\r\n".to_owned(),
                _ => line.to_owned(),
            };
            sdp.split_inclusive('\n').map(line).collect::<String>()
        };
        case.refused("a password of 5 characters", role, short).await?;
    }
    Ok("refused".into())
}

async fn wildcard_feedback(case: &Case<'_>) -> Verdict {
    let change = |sdp: String| without(&sdp, &["a=rtcp-fb"]) + "a=rtcp-fb:* nack\r\na=rtcp-fb:* nack pli\r\n";
    let session = case.accepted("rtcp-fb:*", Role::Publisher, change).await?;
    let feedback = session.answer.medium("video").map(|video| video.feedback().len());
    demand(feedback.is_some_and(|count| count > 0), || "the answer's video has no feedback".into())?;
    Ok(format!("{} feedbacks in the answer", feedback.unwrap_or_default()))
}

/// The offer with VP8 as payload type 35.
pub(super) fn renumbered(sdp: &str) -> String {
    let sdp = sdp.replace("SAVPF 96 97", "SAVPF 35 97").replace("apt=96", "apt=35");
    sdp.replace("rtpmap:96 ", "rtpmap:35 ").replace("rtcp-fb:96 ", "rtcp-fb:35 ")
}

async fn low_payload_types(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.accepted("payload type 35", role, |sdp| renumbered(&sdp)).await?;
        let formats = session.answer.medium("video").map(|video| video.formats().to_vec()).unwrap_or_default();
        demand(formats.iter().any(|format| format == "35"), || format!("the answer's formats are {formats:?}"))?;
    }
    Ok("taken".into())
}

async fn codec_case(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let change = |sdp: String| sdp.replace("opus/48000", "OPUS/48000").replace("VP8/90000", "vp8/90000");
        let session = case.accepted("OPUS and vp8", role, change).await?;
        let live = session.answer.live().count();
        demand(live == 2, || format!("{live} of 2 sections are live"))?;
    }
    Ok("compared without case".into())
}

async fn several_fingerprints(case: &Case<'_>) -> Verdict {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let change = |sdp: String| {
        let weak = format!("a=fingerprint:md5 {}\r\n", ["AB"; 16].join(":"));
        let unknown = format!("a=fingerprint:x-future {}\r\n", ["CD"; 40].join(":"));
        sdp.replace("a=fingerprint:sha-256", &format!("{weak}{unknown}a=fingerprint:SHA-256"))
    };
    let session = case.open(role, change).await?;
    Link::connect(case, &session).await?;
    Ok("connected".into())
}

async fn no_trickle_option(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open(role, |sdp| without(&sdp, &["a=ice-options"])).await?;
        Link::open(&session).await?.validate(case).await?;
        case.end(&session).await?;
    }
    Ok("answered, and checks, too".into())
}

async fn odd_candidates(case: &Case<'_>) -> Verdict {
    let lines = [
        "1 1 UDP 2122260223 192.0.2.7 5000 typ host generation 0 ufrag abcd network-id 1 network-cost 10",
        "2 1 udp 2122260222 2001:db8::7 5000 typ host",
        "3 1 udp 2122260221 host.example 5000 typ host",
        "4 2 udp 2122260220 192.0.2.7 5001 typ host",
        "5 1 tcp 1518280447 192.0.2.7 9 typ host tcptype active",
        "6 1 udp 1686052607 192.0.2.8 5002 typ x-future raddr 0.0.0.0 rport 0",
        "7 1 udp 1686052607 192.0.2.8",
    ];
    let candidates: String = lines.iter().map(|line| format!("a=candidate:{line}\r\n")).collect();
    for role in case.roles() {
        let change = |sdp: String| sdp.replace("a=mid:0\r\n", &format!("a=mid:0\r\n{candidates}"));
        let session = case.open(role, change).await?;
        Link::open(&session).await?.validate(case).await?;
        case.end(&session).await?;
    }
    Ok("none of them hinders".into())
}

/// The answer to the plain offer of each role.
pub(super) async fn answers(
    case: &Case<'_>,
) -> Result<Vec<(Role, Description, Description, String)>, super::super::row::Miss> {
    let mut all = Vec::new();
    for role in case.roles() {
        let (offer, answer, text) = answer(case, role).await?;
        all.push((role, offer, answer, text));
    }
    Ok(all)
}
