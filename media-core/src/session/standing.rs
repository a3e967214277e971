//! How stage `media` stands: whether it holds, and with what it failed. Publishers' and viewers' stages share it.

use smallvec::SmallVec;

use crate::ledger::{Reason, StageChange};

/// `S` is the state of a medium.
#[derive(Debug)]
pub(super) struct Standing<S> {
    is_done: bool,
    was_done: bool,
    /// What it failed with, and the media at that time.
    failure: Option<(Reason, SmallVec<[S; 2]>)>,
}

impl<S: PartialEq> Standing<S> {
    /// Of a stage that just began.
    pub(super) fn new() -> Standing<S> {
        Standing { is_done: false, was_done: false, failure: None }
    }

    /// It holds now.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// It held at some time.
    pub(super) fn was_done(&self) -> bool {
        self.was_done
    }

    /// It holds from now on.
    pub(super) fn finish(&mut self, detail: &str, mut emit: impl FnMut(StageChange, String)) {
        (self.is_done, self.was_done, self.failure) = (true, true, None);
        emit(StageChange::Done, detail.into());
    }

    /// What held or failed is open again.
    pub(super) fn reopen(&mut self, detail: &str, mut emit: impl FnMut(StageChange, String)) {
        if self.is_done || self.failure.is_some() {
            (self.is_done, self.failure) = (false, None);
            emit(StageChange::Reopened, detail.into());
        }
    }

    /// It fails; the change that this is, or `None` if it had failed in the same way.
    pub(super) fn fail(&mut self, reason: Reason, states: SmallVec<[S; 2]>) -> Option<StageChange> {
        let change = match &self.failure {
            Some((before, then)) if *before == reason && *then == states => return None,
            Some((before, _)) if *before == reason => StageChange::Progress,
            _ => StageChange::Failed(reason),
        };
        (self.is_done, self.failure) = (false, Some((reason, states)));
        Some(change)
    }
}
