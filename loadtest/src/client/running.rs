//! What a running publisher and a running viewer have in common: a session resource, and a task that runs the transport.

use std::sync::Arc;
use std::time::Instant;

use media_core::IceCredentials;
use media_core::internals::ice::random_credentials;
use media_core::internals::srtp::SrtpProfile;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::error::{ClientError, ClientState};
use super::identity::Identity;
use super::inbound::{MediaHandler, SharedInbound};
use super::options::ClientOptions;
use super::signaling::Resource;
use super::transport::{ClientTransport, IceRestart, TransportStart};
use crate::sdp::Answer;

/// A running client. Dropping it ends it without DELETE and close_notify.
pub struct Running {
    resource: Resource,
    delete: bool,
    state: watch::Receiver<ClientState>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    answer: Answer,
    local: IceCredentials,
    moves: Arc<Notify>,
    restarts: mpsc::UnboundedSender<IceRestart>,
}

/// What the HTTP exchange led to.
pub(super) struct Negotiated {
    pub(super) resource: Resource,
    pub(super) answer: Answer,
    pub(super) local: IceCredentials,
    pub(super) begun: Instant,
}

impl Running {
    /// Starts the transport in the background, on the current tokio runtime.
    pub(super) fn start(
        negotiated: Negotiated,
        identity: &Identity,
        options: ClientOptions,
        inbound: SharedInbound<impl MediaHandler>,
    ) -> Result<Running, ClientError> {
        let Negotiated { resource, answer, local, begun } = negotiated;
        let (state_sender, state) = watch::channel(ClientState::Connecting);
        let (stop, stopped) = watch::channel(false);
        let delete = options.delete;
        let moves = Arc::new(Notify::new());
        let (restarts, restarted) = mpsc::unbounded_channel();
        let start = TransportStart {
            options,
            identity: identity.clone(),
            local: local.clone(),
            answer: answer.clone(),
            begun,
            moves: Arc::clone(&moves),
            restarts: restarted,
        };
        let transport = ClientTransport::start(start, inbound, state_sender)?;
        let task = tokio::spawn(transport.run(stopped));
        Ok(Running { resource, delete, state, stop, task, answer, local, moves, restarts })
    }

    /// Waits until the handshake is done, and tells the SRTP profile.
    ///
    /// # Errors
    /// Why it never will.
    pub async fn connected(&self) -> Result<SrtpProfile, ClientError> {
        let mut state = self.state.clone();
        loop {
            match &*state.borrow_and_update() {
                ClientState::Connected(profile) => return Ok(*profile),
                ClientState::Ended(error) => return Err(error.clone()),
                ClientState::Connecting | ClientState::Handshaking => {}
            }
            state.changed().await.map_err(|_| ClientError::Stopped)?;
        }
    }

    /// Waits until the session is over, and says why.
    pub async fn ended(&self) -> ClientError {
        let mut state = self.state.clone();
        loop {
            if let ClientState::Ended(error) = &*state.borrow_and_update() {
                return error.clone();
            }
            if state.changed().await.is_err() {
                return ClientError::Stopped;
            }
        }
    }

    /// Why it is over, if it is.
    pub fn failure(&self) -> Option<ClientError> {
        match &*self.state.borrow() {
            ClientState::Ended(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// The server's answer.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The client's own ICE credentials: with the answer's they make authentic checks.
    pub fn ice(&self) -> &IceCredentials {
        &self.local
    }

    /// Goes on from a fresh socket, as behind a NAT that lost its mapping: checks there nominate the new address.
    pub fn change_address(&self) {
        self.moves.notify_one();
    }

    /// Restarts ICE: new credentials by PATCH, and checks with them, from a fresh socket if `has_moved`.
    ///
    /// # Errors
    /// What the HTTP exchange or the fragment lacks; the session goes on as before.
    pub async fn restart_ice(&self, has_moved: bool) -> Result<(), ClientError> {
        let local = random_credentials();
        let remote = self.resource.restart_ice(&local).await?;
        // A client that is over takes no notice.
        let _ = self.restarts.send(IceRestart { local, remote, has_moved });
        Ok(())
    }

    /// The session resource, absolute.
    pub fn session_url(&self) -> &str {
        self.resource.url.as_str()
    }

    /// Ends the session: DELETE unless the options say no, then close_notify.
    ///
    /// # Errors
    /// What the DELETE said; the client is gone all the same.
    pub(super) async fn stop(mut self) -> Result<(), ClientError> {
        let deleted = if self.delete { self.resource.delete().await } else { Ok(()) };
        self.stop.send_replace(true);
        // It fails only if the task panicked, and then the figures say so.
        let _ = (&mut self.task).await;
        deleted
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
