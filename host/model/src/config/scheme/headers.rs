//! The headers of a scheme: those that describe an event, and those that prove who sent it.

use std::collections::BTreeSet;

use super::{Algorithm, Part, Piece, Place, Row, Scheme};

impl Scheme {
    /// The headers from which its rows read an event's id, type, time or organization, in lower case. A row with
    /// posthouse's own members has none: guests get those members anyway.
    pub fn event_headers(&self) -> BTreeSet<String> {
        let rows = self.rows.iter().filter(|row| !row.event.envelope);
        rows.flat_map(|row| named(row, event_places(row))).collect()
    }

    /// The headers with the signature, or with the secret itself, in lower case.
    pub fn signature_headers(&self) -> BTreeSet<String> {
        self.rows.iter().flat_map(|row| named(row, [&row.signature.at])).collect()
    }

    /// The headers that somebody needs to verify a request again, in lower case: the signature, and what it covers.
    pub fn proof_headers(&self) -> BTreeSet<String> {
        let rows = self.rows.iter();
        rows.flat_map(|row| named(row, proof_places(row)).into_iter().chain(lists(row))).collect()
    }

    /// Whether a request's headers contain the secret itself, or a JWT that says nothing of the body. Then anybody who
    /// has them can forge other requests.
    pub fn shows_secret(&self) -> bool {
        let mut algorithms = self.rows.iter().map(|row| row.signature.algorithm);
        algorithms.any(|algorithm| algorithm.is_bearer() || algorithm == Algorithm::JwtHs256)
    }
}

fn event_places(row: &Row) -> impl Iterator<Item = &Place> {
    let event = &row.event;
    let texts = [&event.id, &event.event_type, &event.time, &event.organization];
    texts.into_iter().flatten().flatten().filter_map(|part| match part {
        Part::Place(place) => Some(place),
        Part::Literal(_) => None,
    })
}

fn proof_places(row: &Row) -> impl Iterator<Item = &Place> {
    let signed = row.signed.iter().filter_map(|piece| match piece {
        Piece::Place(place) => Some(place),
        _ => None,
    });
    let time = row.timestamp.iter().map(|time| &time.at);
    [&row.signature.at].into_iter().chain(signed).chain(time).chain(&row.digest)
}

/// The headers that list other headers.
fn lists(row: &Row) -> impl Iterator<Item = String> {
    row.signed.iter().filter_map(|piece| match piece {
        Piece::Headers(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    })
}

/// The headers among these places, one for each family if the row has families.
fn named<'a>(row: &Row, places: impl IntoIterator<Item = &'a Place>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for place in places {
        let Place::Header(name) = place else { continue };
        match name.strip_prefix('*') {
            Some(rest) => names.extend(row.families.iter().map(|family| format!("{family}{rest}"))),
            None => names.extend([name.clone()]),
        }
    }
    names.into_iter().map(|name| name.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(headers: &BTreeSet<String>) -> Vec<&str> {
        headers.iter().map(String::as_str).collect()
    }

    #[test]
    fn the_headers_of_the_shipped_senders_are_told_apart() {
        let of = |name| Scheme::named(name).unwrap();
        let github = of("github");
        assert_eq!(names(&github.event_headers()), ["x-github-delivery", "x-github-event"]);
        assert_eq!(names(&github.signature_headers()), ["x-hub-signature-256"]);
        assert_eq!(github.proof_headers(), github.signature_headers());
        let standard = of("standard-webhooks");
        assert!(standard.event_headers().is_empty());
        assert_eq!(names(&standard.signature_headers()), ["svix-signature", "webhook-signature"]);
        let proof = ["svix-id", "svix-signature", "svix-timestamp", "webhook-id", "webhook-signature"];
        assert_eq!(names(&standard.proof_headers())[..5], proof);
        assert_eq!(names(&of("slack").proof_headers()), ["x-slack-request-timestamp", "x-slack-signature"]);
        assert!(of("gitlab-token").shows_secret() && of("postmark").shows_secret());
        assert!(!github.shows_secret() && !of("slack").shows_secret());
    }
}
