//! The ICE generations of a session, and what a PATCH means to them (RFC 9725 §4.3): each has credentials and an entity tag of its
//! own. The last one counts; those before it count again should its restart fail.

use http::HeaderValue;
use media_core::IceCredentials;
use media_core::negotiation::MAX_REMOTE_CANDIDATES;

use crate::limits::MAX_ICE_GENERATIONS;
use crate::problem::{Problem, Slug};
use crate::request::IfMatch;
use crate::sdpfrag::Fragment;

/// One pair of credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Generation {
    /// Quoted, strong.
    pub(crate) etag: String,
    /// The server's, whose username fragment names it to the media core.
    pub(crate) local: IceCredentials,
    /// The client's.
    pub(crate) remote: IceCredentials,
}

/// The generations of one session, of which there are several only while a restart is under way.
#[derive(Clone, Debug)]
pub(crate) struct IceGenerations {
    former: Vec<Generation>,
    current: Generation,
    /// Candidates that the client may still name in the current one.
    pub(crate) candidate_room: usize,
    /// The lines that stay over restarts, with which a fragment of the server begins.
    pub(crate) head: String,
}

/// What If-Match says of the generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// Missing where that is forgiven.
    Forgiven,
    /// `*`
    Any,
    /// The tag of the current one.
    Current,
    /// That of a former one: the restart after it may be repeated, nothing else.
    Former,
}

/// What a PATCH asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    /// Candidates of the current generation.
    Trickle,
    /// A new generation with these credentials of the client.
    Restart(IceCredentials),
    /// The restart that began the current generation, once more: the client did not get the answer (TRK-15).
    Repeated(&'a Generation),
}

impl IceGenerations {
    /// Those of a session whose offer named so many candidates.
    pub(crate) fn new(first: Generation, head: String, candidates: usize) -> IceGenerations {
        let candidate_room = MAX_REMOTE_CANDIDATES.saturating_sub(candidates);
        IceGenerations { former: Vec::new(), current: first, candidate_room, head }
    }

    /// The session is over: credentials and tags are of no use to anybody.
    pub(crate) fn forget(&mut self) {
        let nothing = || IceCredentials { ufrag: String::new(), pwd: String::new() };
        (self.former, self.head) = (Vec::new(), String::new());
        self.current = Generation { etag: String::new(), local: nothing(), remote: nothing() };
    }

    /// The one that counts.
    pub(crate) fn current(&self) -> &Generation {
        &self.current
    }

    /// Whether there is room for another restart: the media core has said how those before it went.
    pub(crate) fn has_room(&self) -> bool {
        self.former.len() + 1 < MAX_ICE_GENERATIONS
    }

    /// A restart that names so many candidates.
    pub(crate) fn begin(&mut self, next: Generation, candidates: usize) {
        self.former.push(std::mem::replace(&mut self.current, next));
        self.candidate_room = MAX_REMOTE_CANDIDATES.saturating_sub(candidates);
    }

    /// The media core is done with a restart: the generation took over, or was given up.
    pub(crate) fn over(&mut self, local_ufrag: &str, completed: bool) {
        if self.current.local.ufrag == local_ufrag {
            if completed {
                self.former.clear();
            } else if let Some(before) = self.former.pop() {
                self.current = before;
            }
        } else if let Some(index) = self.former.iter().position(|former| former.local.ufrag == local_ufrag) {
            if completed {
                self.former.drain(..index);
            } else if index > 0 {
                self.former.remove(index);
            }
        }
    }

    /// Compares If-Match with the entity tags (RFC 9110 §13.1.1).
    pub(crate) fn precondition(&self, fields: &[&HeaderValue], forgives: bool) -> Result<Precondition, Problem> {
        let judge = |generation: &Generation| IfMatch::judge(fields.iter().copied(), &generation.etag);
        match judge(&self.current) {
            IfMatch::Any => Ok(Precondition::Any),
            IfMatch::Matches => Ok(Precondition::Current),
            IfMatch::Missing if forgives => Ok(Precondition::Forgiven),
            IfMatch::Missing => Err(if_match_required()),
            IfMatch::Malformed => Err(Problem::new(Slug::BadRequest, "If-Match does not parse")),
            IfMatch::Fails => {
                let is_former = self.former.iter().any(|former| judge(former) == IfMatch::Matches);
                is_former.then_some(Precondition::Former).ok_or_else(stale)
            }
        }
    }

    /// What a fragment under this precondition asks for.
    pub(crate) fn meaning(&self, precondition: Precondition, fragment: &Fragment) -> Result<Meaning<'_>, Problem> {
        let Fragment { ufrag, pwd, .. } = fragment;
        let changed = |sent: &Option<String>, known: &String| sent.as_ref().is_some_and(|sent| sent != known);
        let remote = &self.current.remote;
        match (changed(ufrag, &remote.ufrag), changed(pwd, &remote.pwd)) {
            (false, false) => self.meaning_of_current(precondition, ufrag.is_some() && pwd.is_some(), ufrag.is_some()),
            (true, true) => {
                let (Some(ufrag), Some(pwd)) = (ufrag, pwd) else { return Err(half()) };
                self.meaning_of_new(precondition, IceCredentials { ufrag: ufrag.clone(), pwd: pwd.clone() })
            }
            _ if precondition == Precondition::Former => Err(stale()),
            _ => Err(half()),
        }
    }

    /// The fragment has the current credentials, or none (`is_named` for any, `is_whole` for both).
    fn meaning_of_current(
        &self,
        precondition: Precondition,
        is_whole: bool,
        is_named: bool,
    ) -> Result<Meaning<'_>, Problem> {
        let is_pending = !self.former.is_empty();
        match precondition {
            Precondition::Former if !is_whole => Err(stale()),
            Precondition::Former => Ok(Meaning::Repeated(&self.current)),
            // Under the current tag the client has the answer. Under `*` it may not, until it has used it.
            Precondition::Any if is_pending && is_whole => Ok(Meaning::Repeated(&self.current)),
            // Leniency reaches only to fragments that prove to know the session (TRK-07).
            Precondition::Forgiven if !is_named => Err(if_match_required()),
            Precondition::Forgiven | Precondition::Any | Precondition::Current => Ok(Meaning::Trickle),
        }
    }

    fn meaning_of_new(&self, precondition: Precondition, remote: IceCredentials) -> Result<Meaning<'_>, Problem> {
        match precondition {
            // A restart is never forgiven its lack of If-Match.
            Precondition::Forgiven => Err(if_match_required()),
            Precondition::Former => Err(stale()),
            // A fragment of a former generation that was under way for long, sent with `*`.
            _ if self.former.iter().any(|former| former.remote == remote) => Err(stale()),
            Precondition::Any | Precondition::Current => Ok(Meaning::Restart(remote)),
        }
    }
}

fn if_match_required() -> Problem {
    Problem::new(Slug::PreconditionRequired, "send If-Match with the ETag of the last 201 or 200")
}

fn stale() -> Problem {
    Problem::new(Slug::PreconditionFailed, "If-Match is not the ETag of this ICE session")
}

fn half() -> Problem {
    Problem::new(Slug::SdpfragSyntax, "ice-ufrag and ice-pwd must change together")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(name: &str) -> IceCredentials {
        IceCredentials { ufrag: format!("{name}-u"), pwd: format!("{name}-p") }
    }

    fn generation(name: &str) -> Generation {
        let local = credentials(&format!("server-{name}"));
        Generation { etag: format!("\"{name}\""), local, remote: credentials(name) }
    }

    fn fragment(ufrag: Option<&str>, pwd: Option<&str>) -> Fragment {
        let (ufrag, pwd) = (ufrag.map(|name| format!("{name}-u")), pwd.map(|name| format!("{name}-p")));
        Fragment { ufrag, pwd, end_of_candidates: true, ..Fragment::default() }
    }

    fn of(names: &[&str]) -> IceGenerations {
        let mut ice = IceGenerations::new(generation(names[0]), String::new(), 0);
        names[1..].iter().for_each(|name| ice.begin(generation(name), 0));
        ice
    }

    /// What a PATCH gets: the kind of its meaning, or the code of the problem.
    fn patch(ice: &IceGenerations, if_match: Option<&str>, fragment: &Fragment) -> &'static str {
        let fields: Vec<HeaderValue> = if_match.iter().map(|value| HeaderValue::from_str(value).unwrap()).collect();
        let fields: Vec<&HeaderValue> = fields.iter().collect();
        let judged = ice.precondition(&fields, false).and_then(|judged| ice.meaning(judged, fragment));
        match judged {
            Ok(Meaning::Trickle) => "trickle",
            Ok(Meaning::Restart(_)) => "restart",
            Ok(Meaning::Repeated(generation)) => {
                assert_eq!(generation, ice.current());
                "repeated"
            }
            Err(problem) => problem.slug.as_str(),
        }
    }

    // TRK-03, TRK-08, TRK-09, TRK-10
    #[test]
    fn two_new_credentials_are_a_restart_under_every_tag_that_may_ask_for_it() {
        let ice = of(&["one"]);
        for if_match in ["*", "\"*\"", "\"one\"", "\"x\", \"one\""] {
            assert_eq!(patch(&ice, Some(if_match), &fragment(Some("two"), Some("two"))), "restart", "{if_match}");
            assert_eq!(patch(&ice, Some(if_match), &fragment(Some("one"), Some("one"))), "trickle", "{if_match}");
            assert_eq!(patch(&ice, Some(if_match), &fragment(None, None)), "trickle", "{if_match}");
            for (ufrag, pwd) in [("two", Some("one")), ("one", Some("two")), ("two", None)] {
                assert_eq!(patch(&ice, Some(if_match), &fragment(Some(ufrag), pwd)), "sdpfrag-syntax");
            }
        }
        for (if_match, code) in [
            (None, "precondition-required"),
            (Some("\"x\""), "precondition-failed"),
            (Some("W/\"one\""), "precondition-failed"),
            (Some("\"one"), "bad-request"),
        ] {
            assert_eq!(patch(&ice, if_match, &fragment(Some("two"), Some("two"))), code, "{if_match:?}");
        }
        assert_eq!(
            ice.meaning(Precondition::Forgiven, &fragment(Some("two"), Some("two"))).unwrap_err().slug,
            Slug::PreconditionRequired,
            "leniency is for candidates"
        );
    }

    // TRK-14, TRK-15
    #[test]
    fn while_a_restart_is_under_way_the_former_tag_is_good_for_its_repetition_alone() {
        let ice = of(&["one", "two"]);
        let (one, two, three) = (
            fragment(Some("one"), Some("one")),
            fragment(Some("two"), Some("two")),
            fragment(Some("three"), Some("three")),
        );
        for (if_match, fragment, expected) in [
            ("\"one\"", &two, "repeated"),
            ("*", &two, "repeated"),
            ("\"two\"", &two, "trickle"),
            ("\"two\"", &super::tests::fragment(None, None), "trickle"),
            ("*", &super::tests::fragment(None, None), "trickle"),
            ("\"one\"", &one, "precondition-failed"),
            ("\"one\"", &super::tests::fragment(None, None), "precondition-failed"),
            ("\"one\"", &super::tests::fragment(Some("two"), None), "precondition-failed"),
            ("\"one\"", &super::tests::fragment(Some("two"), Some("one")), "precondition-failed"),
            ("\"one\"", &three, "precondition-failed"),
            ("W/\"one\"", &two, "precondition-failed"),
            ("*", &one, "precondition-failed"),
            ("\"two\"", &one, "precondition-failed"),
            ("\"two\"", &three, "restart"),
            ("*", &three, "restart"),
        ] {
            assert_eq!(patch(&ice, Some(if_match), fragment), expected, "{if_match} {fragment:?}");
        }
    }

    // TRK-12, TRK-13
    #[test]
    fn a_completed_restart_makes_the_former_tag_stale_and_a_failed_one_restores_it() {
        let two = fragment(Some("two"), Some("two"));
        let mut ice = of(&["one", "two"]);
        ice.over("server-two-u", true);
        assert_eq!(patch(&ice, Some("\"one\""), &two), "precondition-failed");
        assert_eq!(patch(&ice, Some("*"), &two), "trickle", "players that always send * trickle so (TRK-08)");

        let mut ice = of(&["one", "two"]);
        ice.over("server-two-u", false);
        assert_eq!(ice.current(), &generation("one"));
        assert_eq!(patch(&ice, Some("\"one\""), &fragment(Some("one"), Some("one"))), "trickle");
        assert_eq!(patch(&ice, Some("\"two\""), &two), "precondition-failed");
        assert_eq!(patch(&ice, Some("*"), &two), "restart");
        ice.over("server-one-u", false);
        ice.over("nobody-u", true);
        assert_eq!(ice.current(), &generation("one"), "what cannot be changes nothing");
    }

    // TRK-14: a restart may follow while the news of the one before is under way.
    #[test]
    fn news_of_an_earlier_restart_concern_that_one_alone() {
        let mut ice = of(&["one", "two", "three"]);
        ice.over("server-two-u", true);
        ice.over("server-three-u", false);
        assert_eq!(ice.current(), &generation("two"));

        let mut ice = of(&["one", "two", "three"]);
        ice.over("server-two-u", false);
        ice.over("server-three-u", false);
        assert_eq!(ice.current(), &generation("one"));

        let mut ice = of(&["one", "two"]);
        while ice.has_room() {
            ice.begin(generation("more"), 0);
        }
        assert_eq!(ice.former.len() + 1, MAX_ICE_GENERATIONS);
    }
}
