//! Walks the pages of one window, newest first, within limits.
//!
//! A list may repeat a cursor, go on with events that were there already, hold events that can't be read, or not keep
//! to the time that was asked for. None of that ends a walk silently: what can be read is returned, the rest is
//! counted, and a list that goes in circles is an error.

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;
use posthouse_model::{NewEvent, Pattern, SecondKey};

use super::{List, NoPage, Window};

use crate::ingress::InvalidPayload;

/// Events on a page, which is the most that the APIs give.
pub(super) const PAGE: usize = 100;

/// How far an event may be outside of the window.
const SLACK: Duration = Duration::from_secs(3600);

/// The most pages of one window.
const MOST_PAGES: usize = 10_000;

/// The limits of what is in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Events.
    pub(super) events: usize,
    /// Bytes of their bodies.
    pub(super) bytes: usize,
    /// Bytes of one body.
    pub(super) body: usize,
}

/// Reads the body of an event.
pub(super) type Read<'a> =
    &'a (dyn Fn(&bytes::Bytes) -> Result<(NewEvent, Option<SecondKey>), InvalidPayload> + Send + Sync);

/// An event of a list.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) event: NewEvent,
    pub(super) second: Option<SecondKey>,
    /// When it happened; the beginning of its window if it does not say so.
    pub(super) at: Timestamp,
}

impl Listed {
    /// The name that its webhook shares with it.
    pub(super) fn key(&self) -> SecondKey {
        self.second.unwrap_or_else(|| SecondKey::of_id(self.event.id.as_str()))
    }
}

/// A part of a window, newest first, as the sender lists it.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) events: Vec<Listed>,
    /// Events of types that the source does not accept.
    pub(super) filtered: u64,
    /// Events that can't be read.
    pub(super) unreadable: u64,
    /// Events outside of the window.
    pub(super) outside: u64,
    /// Whether the window goes on, with older events.
    pub(super) goes_on: bool,
}

/// A walk over one window.
pub(super) struct Walk<'a> {
    window: Window,
    /// Events that happened then or later are left to a later comparison.
    end: Timestamp,
    limits: Limits,
    read: Read<'a>,
    types: &'a [Pattern],
    cursor: Option<String>,
    cursors: HashSet<String>,
    seen: HashSet<SecondKey>,
    size: usize,
    pages: usize,
    ended: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        window: Window,
        end: Timestamp,
        limits: Limits,
        read: Read<'a>,
        types: &'a [Pattern],
    ) -> Self {
        Self {
            window,
            end,
            limits,
            read,
            types,
            cursor: None,
            cursors: HashSet::new(),
            seen: HashSet::new(),
            size: PAGE,
            pages: 0,
            ended: false,
        }
    }

    /// The events from here on, until the window ends or the limits are reached.
    ///
    /// # Errors
    /// Why the list can't be read to its end, in words. Then nothing of this part counts.
    pub(super) async fn part(&mut self, list: &mut impl List) -> Result<Part, String> {
        let mut part = Part::default();
        let mut bytes = 0;
        while !self.ended {
            if part.events.len() >= self.limits.events || bytes >= self.limits.bytes {
                part.goes_on = true;
                return Ok(part);
            }
            let page = match list.page(self.window, self.cursor.as_deref(), self.size).await {
                Ok(page) => page,
                Err(NoPage::TooLarge) if self.size > 1 => {
                    self.size /= 2;
                    continue;
                }
                Err(NoPage::TooLarge) => return Err("the answer with a single event is too large".to_owned()),
                Err(NoPage::Failed(error)) => return Err(error),
            };
            self.pages += 1;
            if self.pages > MOST_PAGES {
                return Err(format!("the list has more than {MOST_PAGES} pages for one window"));
            }
            let listed = page.events.len();
            let (mut new, mut outside, mut unreadable) = (0, 0, 0);
            for body in page.events {
                let read = match body.len() <= self.limits.body {
                    true => (self.read)(&body).ok(),
                    false => None,
                };
                let Some((event, second)) = read else {
                    unreadable += 1;
                    continue;
                };
                let at = event.occurred_at.unwrap_or(self.window.from);
                let listed = Listed { event, second, at };
                if !self.seen.insert(listed.key()) {
                    continue;
                }
                new += 1;
                if self.is_outside(at) {
                    outside += 1;
                } else if at >= self.end {
                    // The next comparison meets it.
                } else if !self.types.iter().any(|pattern| pattern.matches(&listed.event.event_type)) {
                    part.filtered += 1;
                } else {
                    bytes += listed.event.body.len();
                    part.events.push(listed);
                }
            }
            part.outside += outside;
            part.unreadable += unreadable;
            if outside > 0 && outside == new {
                return Err("the sender's list does not keep to the time that was asked for".to_owned());
            }
            match page.next {
                None => self.ended = true,
                Some(_) if listed == 0 => return Err("the list goes on after an empty page".to_owned()),
                Some(next) => {
                    let is_new = self.cursors.insert(next.clone());
                    // A page of events that can't be read has no new one either.
                    if !is_new || (new == 0 && unreadable == 0) {
                        return Err("the list goes in circles: it repeats a page".to_owned());
                    }
                    self.cursor = Some(next);
                }
            }
        }
        Ok(part)
    }

    fn is_outside(&self, at: Timestamp) -> bool {
        let from = self.window.from.saturating_sub(SLACK).unwrap_or(Timestamp::MIN);
        let to = self.window.to.saturating_add(SLACK).unwrap_or(Timestamp::MAX);
        at < from || at >= to
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use posthouse_model::{EventId, EventType, SourceName};

    use super::*;

    use crate::catch_up::Page;

    /// A list of these pages. Each answer is used once.
    struct Pages {
        answers: Vec<Result<Page, NoPage>>,
        asked: Vec<(Option<String>, usize)>,
    }

    impl List for Pages {
        async fn page(&mut self, _: Window, cursor: Option<&str>, size: usize) -> Result<Page, NoPage> {
            self.asked.push((cursor.map(str::to_owned), size));
            if self.answers.is_empty() {
                return Err(NoPage::Failed("nothing more".to_owned()));
            }
            self.answers.remove(0)
        }

        fn requests(&self) -> u64 {
            self.asked.len() as u64
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A page of these events: each is its second, and its id.
    fn page(seconds: &[i64], next: Option<&str>) -> Result<Page, NoPage> {
        let events = seconds.iter().map(|second| Bytes::from(second.to_string())).collect();
        Ok(Page { events, next: next.map(str::to_owned) })
    }

    /// Reads the body of these tests: a number, which must be even.
    fn read(body: &Bytes) -> Result<(NewEvent, Option<SecondKey>), InvalidPayload> {
        let text = std::str::from_utf8(body).unwrap();
        let second: i64 = text.parse().map_err(|_| InvalidPayload::NotUtf8)?;
        let event = NewEvent {
            source: SourceName::new("crm").unwrap(),
            id: EventId::new(text).unwrap(),
            event_type: EventType::new(if second % 7 == 0 { "other.type" } else { "user.created" }).unwrap(),
            organization: None,
            occurred_at: Some(at(second)),
            received_at: at(0),
            depth: 0,
            trace: None,
            data: 0..0,
            body: body.clone(),
            request: Default::default(),
        };
        Ok((event, None))
    }

    const LIMITS: Limits = Limits { events: 1000, bytes: 1 << 20, body: 1000 };

    async fn walked(
        limits: Limits,
        answers: Vec<Result<Page, NoPage>>,
    ) -> (Vec<Result<Part, String>>, Pages) {
        let types = [Pattern::new("user.*").unwrap()];
        let window = Window { from: at(10_000), to: at(20_000) };
        let mut walk = Walk::new(window, at(20_000), limits, &read, &types);
        let mut list = Pages { answers, asked: Vec::new() };
        let mut parts = Vec::new();
        loop {
            let part = walk.part(&mut list).await;
            let goes_on = part.as_ref().is_ok_and(|part| part.goes_on);
            parts.push(part);
            if !goes_on {
                return (parts, list);
            }
        }
    }

    fn seconds(part: &Result<Part, String>) -> Vec<i64> {
        part.as_ref().unwrap().events.iter().map(|listed| listed.at.as_second()).collect()
    }

    #[tokio::test]
    async fn all_pages_are_walked_and_what_is_not_wanted_is_counted() {
        let odd =
            Ok(Page { events: vec![Bytes::from_static(b"odd"), Bytes::from_static(b"15000")], next: None });
        let answers =
            vec![page(&[19_000, 18_998, 18_901], Some("a")), page(&[17_000, 16_000], Some("b")), odd];
        let (parts, list) = walked(LIMITS, answers).await;
        // 18998 is a multiple of 7, and of another type.
        assert_eq!(seconds(&parts[0]), [19_000, 18_901, 17_000, 16_000, 15_000]);
        let part = parts[0].as_ref().unwrap();
        assert_eq!((part.filtered, part.unreadable, part.outside, part.goes_on), (1, 1, 0, false));
        let asked: Vec<_> = list.asked.iter().map(|(cursor, _)| cursor.as_deref()).collect();
        assert_eq!(asked, [None, Some("a"), Some("b")]);
    }

    #[tokio::test]
    async fn a_window_with_too_much_comes_in_parts() {
        let limits = Limits { events: 2, ..LIMITS };
        let answers = vec![
            page(&[19_000, 18_901], Some("a")),
            page(&[17_000, 16_000], Some("b")),
            page(&[15_000], None),
        ];
        let (parts, _) = walked(limits, answers).await;
        assert_eq!(
            parts.iter().map(seconds).collect::<Vec<_>>(),
            [vec![19_000, 18_901], vec![17_000, 16_000], vec![15_000]]
        );
        let limits = Limits { bytes: 5, ..LIMITS };
        let (parts, _) = walked(limits, vec![page(&[19_000], Some("a")), page(&[17_000], None)]).await;
        assert_eq!(parts.len(), 2);
        let limits = Limits { body: 4, ..LIMITS };
        let (parts, _) = walked(limits, vec![page(&[19_000], None)]).await;
        assert_eq!(parts[0].as_ref().unwrap().unreadable, 1, "a body beyond the limit");
    }

    #[tokio::test]
    async fn a_list_that_goes_in_circles_is_an_error() {
        for answers in [
            vec![page(&[19_000], Some("a")), page(&[18_000], Some("a"))],
            vec![page(&[19_000], Some("a")), page(&[19_000], Some("b"))],
            vec![page(&[], Some("a"))],
        ] {
            let (parts, list) = walked(LIMITS, answers).await;
            let error = parts[0].as_ref().unwrap_err();
            assert!(error.contains("circles") || error.contains("empty page"), "{error}");
            assert!(list.asked.len() <= 2);
        }
    }

    #[tokio::test]
    async fn a_list_that_keeps_to_no_time_is_an_error_and_one_event_beyond_it_is_left_out() {
        let (parts, _) = walked(LIMITS, vec![page(&[19_000, 500], None)]).await;
        assert_eq!(seconds(&parts[0]), [19_000]);
        assert_eq!(parts[0].as_ref().unwrap().outside, 1);
        let (parts, _) = walked(LIMITS, vec![page(&[19_000], Some("a")), page(&[500, 400], Some("b"))]).await;
        assert!(parts[0].as_ref().unwrap_err().contains("does not keep to the time"));
        // A little later than the comparison: left to the next one.
        let (parts, _) = walked(LIMITS, vec![page(&[20_001, 19_000], None)]).await;
        assert_eq!(seconds(&parts[0]), [19_000]);
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_asked_for_in_smaller_ones() {
        let too_large = || Err(NoPage::TooLarge);
        let (parts, list) = walked(LIMITS, vec![too_large(), too_large(), page(&[19_000], None)]).await;
        assert_eq!(seconds(&parts[0]), [19_000]);
        assert_eq!(list.asked.iter().map(|(_, size)| *size).collect::<Vec<_>>(), [100, 50, 25]);
        let (parts, _) = walked(LIMITS, (0..10).map(|_| too_large()).collect()).await;
        assert!(parts[0].as_ref().unwrap_err().contains("single event"));
        let (parts, _) =
            walked(LIMITS, vec![page(&[19_000], Some("a")), Err(NoPage::Failed("down".to_owned()))]).await;
        assert_eq!(parts[0].as_ref().unwrap_err(), "down", "nothing of a part that did not end counts");
    }
}
