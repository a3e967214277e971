//! The table of rows, one file an area.

mod answers;
mod cors;
mod dtls;
mod extensions;
mod http;
mod ice;
mod offers;
mod restart;
mod rtcp;
mod rtp;
mod session;
mod srtp;
mod trickle;
mod whep;

use super::row::Row;

/// All rows: those that a publisher's side answers for come first where the program has a choice.
pub(super) fn all() -> Vec<&'static Row> {
    let areas = [
        http::ROWS,
        cors::ROWS,
        session::ROWS,
        offers::ROWS,
        answers::ROWS,
        trickle::ROWS,
        restart::ROWS,
        ice::ROWS,
        dtls::ROWS,
        srtp::ROWS,
        rtp::ROWS,
        rtcp::ROWS,
        whep::ROWS,
        extensions::ROWS,
    ];
    areas.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_stands_once_and_every_row_says_what_and_whence() {
        let rows = all();
        let ids: std::collections::BTreeSet<&str> = rows.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), rows.len());
        assert!(rows.iter().all(|row| !row.from.is_empty() && !row.text.is_empty() && !row.text.ends_with('.')));
        // What only practice asks for fails nobody.
        let practice = rows.iter().filter(|row| row.from == "practice");
        assert_eq!(practice.filter(|row| row.level == crate::conformance::Level::Must).count(), 0);
    }
}
