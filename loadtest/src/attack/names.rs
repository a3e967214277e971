//! Offers of publishers for ever new streams: what a name costs before a packet has come.

use super::half_open::posts;
use super::peer::Role;
use super::requests::Requests;
use super::{AttackError, Target};

/// Beyond the streams of the other attacks.
const FIRST: u64 = 1000;
const NAMES: u64 = 20_000;

pub(super) fn start(target: &Target) -> Result<Requests, AttackError> {
    let urls = (FIRST..FIRST + NAMES).map(|number| target.own_stream(number)).collect::<Result<_, _>>()?;
    posts("names", target, Role::Publisher, urls)
}
