//! Opens a session whose client never answers, and prints what the core says of it: the stages of its ledger, a snapshot,
//! and the end with its reason and advice. It uses the crate's public face only, and exits by itself within two seconds.
//!
//! ```sh
//! cargo run -p media-core --example ledger
//! ```

use std::time::{Duration, Instant};

use media_core::ledger::{Ledger, Reason};
use media_core::media::{Codec, Format, MediaKind, MediaSection, Role};
use media_core::negotiation::{candidate_line, random_credentials};
use media_core::{
    CoreConfig, CoreEvent, DtlsParameters, DtlsRole, Fingerprint, FingerprintHash, IceMode, IceParameters, MediaCore,
    SessionId, SessionLimits, SessionSpec, StartError, StreamId,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), StartError> {
    // One shard on 127.0.0.1, on a port that the system chooses.
    let config = CoreConfig { media_port: 0, ice_timeout: Duration::from_secs(1), ..CoreConfig::default() };
    let (core, mut events) = MediaCore::start(config)?;

    // What an answer would say of the core.
    let spec = publisher(SessionId(1), StreamId(7), core.fingerprint());
    let shard = core.shard_for(spec.stream, spec.role);
    for candidate in core.local_candidates(shard).iter() {
        println!("a={}", candidate_line(candidate));
    }

    let mut ledger = Ledger::new(Instant::now());
    core.open(shard, spec);
    for snapshot in core.snapshot().await {
        for session in &snapshot.sessions {
            println!("shard {}: session {}: {} RTP packets", snapshot.shard, session.id, session.stats.rtp_received);
        }
    }

    while let Some(event) = events.recv().await {
        match event {
            CoreEvent::Stage { session, event } => {
                println!("session {session}: {}: {:?} {}", event.stage, event.change, event.detail);
                ledger.apply(&event);
            }
            CoreEvent::FormatInUse { session, track, in_use } => {
                println!("session {session}: {} is sent as payload type {}", track.kind.as_str(), in_use.payload_type);
            }
            CoreEvent::Layers { session, track, layers } => {
                let rates: Vec<u64> = layers.iter().map(|report| report.layer.bitrate).collect();
                println!("session {session}: {} is sent in layers of {rates:?} bit/s", track.kind.as_str());
            }
            CoreEvent::PublisherSilence { session, since } => {
                println!("session {session}: {}", if since.is_some() { "silent" } else { "heard again" });
            }
            CoreEvent::IceRestartOver { session, completed, .. } => {
                println!("session {session}: ICE restart {}", if completed { "completed" } else { "given up" });
            }
            CoreEvent::Ended { session, reason, .. } => {
                end(session, reason, &ledger);
                break;
            }
        }
    }
    core.shutdown().await;
    Ok(())
}

/// A publisher of Opus as an offer and an answer could have agreed it. No peer has these credentials, so that no
/// connectivity check will ever be valid.
fn publisher(id: SessionId, stream: StreamId, certificate: Fingerprint) -> SessionSpec {
    let ice = IceParameters {
        mode: IceMode::Lite,
        local: random_credentials(),
        remote: random_credentials(),
        remote_is_lite: false,
        remote_candidates: Vec::new(),
    };
    let fingerprint = Fingerprint { hash: FingerprintHash::Sha256, digest: vec![0; 32] };
    SessionSpec {
        id,
        stream,
        role: Role::Publisher,
        ice,
        dtls: DtlsParameters { role: DtlsRole::Server, fingerprints: vec![fingerprint] },
        sections: vec![MediaSection::new("0", MediaKind::Audio, vec![Format::new(111, Codec::Opus)])],
        refused: Vec::new(),
        certificate,
        cname: "example".into(),
        limits: SessionLimits::default(),
    }
}

/// Says how the session ended: by its reason, and stage by stage.
fn end(session: SessionId, reason: Reason, ledger: &Ledger) {
    println!("session {session} ended: {}", reason.code());
    println!("advice: {}", reason.advice());
    for stage in ledger.stages() {
        println!("  {}: {:?}", stage.stage, stage.state);
    }
}
