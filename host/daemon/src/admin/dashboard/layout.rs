//! The parts that all pages share: the frame, and the form of times, numbers and states.

use axum::response::{Html, IntoResponse, Response};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::assets;

/// The pages that the head of each page lists.
const PAGES: [(&str, &str); 9] = [
    ("/", "Overview"),
    ("/events", "Events"),
    ("/deliveries", "Deliveries"),
    ("/dead-letters", "Dead letters"),
    ("/plugins", "Plugins"),
    ("/sources", "Sources"),
    ("/decisions", "Decisions"),
    ("/outbox", "Outbox"),
    ("/audit", "Audit log"),
];

/// The number of characters that a list shows of a long text.
const SHOWN: usize = 160;

/// Characters that need no escape in a part of a URL.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A page with this title. `at` is the path of the page that it belongs to.
pub(super) fn page(title: &str, at: &str, body: &Markup) -> Response {
    let head = html! {
        header {
            a.name href="/" { img src=(assets::ICON) alt="" width="22" height="22"; "posthouse" }
            nav aria-label="Pages" {
                ul {
                    @for (path, name) in PAGES {
                        li { a href=(path) aria-current=[(path == at).then_some("page")] { (name) } }
                    }
                }
            }
            div.end {
                span #feed {}
                form.inline method="post" action="/logout" { button.plain { "Log out" } }
            }
        }
    };
    framed(title, &head, body)
}

/// A page with this head, which may be empty.
pub(super) fn framed(title: &str, head: &Markup, body: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · posthouse" }
                link rel="stylesheet" href=(assets::STYLE);
                link rel="icon" type="image/svg+xml" href=(assets::ICON);
                script src=(assets::SCRIPT) defer {}
            }
            body {
                a.skip href="#main" { "To the content" }
                (head)
                main #main tabindex="-1" {
                    h1 { (title) }
                    (body)
                }
                footer { "Times are UTC. " span #zone {} }
            }
        }
    };
    Html(page.into_string()).into_response()
}

/// A part of a page that is kept up to date.
pub(super) fn live(id: &str, body: &Markup) -> Markup {
    html! { div id=(id) data-live { (body) } }
}

/// A point in time.
pub(super) fn time(at: Timestamp) -> Markup {
    html! { time datetime=(at.to_string()) title=(at.to_string()) { (at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()) } }
}

/// How long ago that was, rounded.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A duration in milliseconds; `–` if there is none, because nothing ran.
pub(super) fn maybe_millis(ms: Option<f64>) -> String {
    ms.map_or_else(|| "–".to_owned(), millis)
}

/// A long text in a list: its beginning, which expands to all of it.
pub(super) fn long(text: &str) -> Markup {
    let mut chars = text.char_indices();
    let Some((cut, _)) = chars.nth(SHOWN).filter(|_| chars.nth(SHOWN / 4).is_some()) else {
        return html! { (text) };
    };
    html! {
        details.long {
            summary { (text[..cut]) "…" }
            (text)
        }
    }
}

/// A field for a time, with a picker that fills it. The picker has its own name and counts if the field is
/// empty: without scripts, a browser can't fill the field from the picker.
pub(super) fn moment_field(name: &str, label: &str, value: &str, example: &str) -> Markup {
    html! {
        div.when {
            label for=(name) { (label) ", UTC" }
            div.both {
                input id=(name) name=(name) value=(value) placeholder=(example) title="2h, 7d, today, yesterday, 2026-11-30, 2026-11-30 14:00";
                input.picker type="datetime-local" name=(format!("{name}_at")) data-into=(name) aria-label=(format!("{label}: choose a date and time, UTC"));
            }
        }
    }
}

/// A duration in milliseconds.
pub(super) fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms if ms < 120_000.0 => format!("{:.1} s", ms / 1000.0),
        ms if ms < 7_200_000.0 => format!("{:.0} min", ms / 60_000.0),
        ms if ms < 172_800_000.0 => format!("{:.0} h", ms / 3_600_000.0),
        ms => format!("{:.0} days", ms / 86_400_000.0),
    }
}

/// A number of bytes.
pub(super) fn bytes(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

/// A state as a badge.
pub(super) fn state(word: &str) -> Markup {
    html! { span class=(format!("state {word}")) { (word) } }
}

/// A number with a link to what it counts.
pub(super) fn count(count: u64, href: &str) -> Markup {
    html! { a href=(href) { (count) } }
}

/// A part of a URL, escaped.
pub(super) fn part(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// A path with these parameters, without the empty ones.
pub(super) fn link(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut href = path.to_owned();
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        href.push(if href.contains('?') { '&' } else { '?' });
        href.push_str(&format!("{name}={}", part(value)));
    }
    href
}

/// The page about a source: one in config.toml, one that is a plugin's own, or none.
pub(super) fn source(name: &str) -> String {
    match name.split_once(':') {
        Some(("interceptor", _)) => link("/decisions", &[("interceptor", &name["interceptor:".len()..])]),
        Some((_, plugin)) => format!("/plugins/{}", part(plugin)),
        None if name.starts_with('(') => "/sources#none".to_owned(),
        None => format!("/sources/{}", part(name)),
    }
}

/// The page of an event, at one of its deliveries.
pub(super) fn delivery(source: &str, event_id: &str, id: impl std::fmt::Display) -> String {
    format!("{}#{id}", event(source, event_id))
}

/// The page about an event.
pub(super) fn event(source: &str, id: &str) -> String {
    format!("/events/{}/{}", part(source), part(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_holds_what_it_is_given_whatever_that_is() {
        assert_eq!(link("/events", &[("type", "user.*"), ("source", "")]), "/events?type=user.%2A");
        assert_eq!(link("/x?a=1", &[("b", "&c=d")]), "/x?a=1&b=%26c%3Dd");
        assert_eq!(event("plugin:a", "../b?c"), "/events/plugin%3Aa/..%2Fb%3Fc");
    }

    #[test]
    fn a_long_text_is_cut_in_a_list_and_all_there_when_it_is_opened() {
        assert_eq!(long("short").into_string(), "short");
        let text = "ä".repeat(4096);
        let shown = long(&text).into_string();
        assert!(shown.starts_with("<details") && shown.contains("…</summary>") && shown.contains(&text));
    }

    #[test]
    fn times_read_as_people_say_them() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (then, said) in
            [(100, "0 s ago"), (40, "60 s ago"), (-200, "5 min ago"), (-200_000, "2 days ago")]
        {
            assert_eq!(ago(at(then), at(100)), said);
        }
        assert_eq!(
            [0.5, 12.3, 1500.0, 2e5, 9e8].map(millis),
            ["0.50 ms", "12 ms", "1.5 s", "3 min", "10 days"]
        );
    }
}
