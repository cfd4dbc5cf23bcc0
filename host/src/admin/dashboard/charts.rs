//! Charts as SVG, drawn here. They are decoration for who can't see them: what they show is said in the
//! caption. Each column leads to what it counts.

use maud::{Markup, html};

use super::layout;
use crate::store::Point;

/// Width and height of the drawing, in its own units.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 100.0;

/// A line of a chart: its class, and a value for each point.
type Line<'a> = (&'a str, &'a dyn Fn(&Point) -> f64);

/// Columns of two colours, the second on top of the first.
pub(super) fn columns(
    points: &[Point],
    caption: &Markup,
    path: &str,
    values: &dyn Fn(&Point) -> [u64; 2],
) -> Markup {
    let most = points.iter().map(|point| values(point).iter().sum::<u64>()).max().unwrap_or(0).max(1) as f64;
    let step = WIDTH / points.len().max(1) as f64;
    drawn(
        caption,
        &html! {
            @for (n, point) in points.iter().enumerate() {
                @let [first, second] = values(point).map(|value| value as f64 / most * HEIGHT);
                @let x = n as f64 * step;
                a href=(within(path, point)) tabindex="-1" {
                    title { (format!("{}: {}", point.at.strftime("%H:%M"), values(point).iter().sum::<u64>())) }
                    rect.none x=(short(x)) y="0" width=(short(step)) height=(short(HEIGHT)) {}
                    rect.bar x=(short(x + step * 0.1)) y=(short(HEIGHT - first)) width=(short(step * 0.8)) height=(short(first)) {}
                    rect.bar2 x=(short(x + step * 0.1)) y=(short(HEIGHT - first - second)) width=(short(step * 0.8)) height=(short(second)) {}
                }
            }
        },
    )
}

/// Lines, all to one scale.
pub(super) fn lines(points: &[Point], caption: &Markup, path: &str, lines: &[Line<'_>]) -> Markup {
    let values = points.iter().flat_map(|point| lines.iter().map(|(_, value)| value(point)));
    let most = values.fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let step = WIDTH / points.len().max(1) as f64;
    drawn(
        caption,
        &html! {
            @for (n, point) in points.iter().enumerate() {
                a href=(within(path, point)) tabindex="-1" {
                    title { (point.at.strftime("%H:%M").to_string()) }
                    rect.none x=(short(n as f64 * step)) y="0" width=(short(step)) height=(short(HEIGHT)) {}
                }
            }
            @for (class, value) in lines {
                @let at = |(n, point): (usize, &Point)| format!(
                    "{},{}", short((n as f64 + 0.5) * step), short(HEIGHT - value(point) / most * HEIGHT));
                polyline class=(class) points=(points.iter().enumerate().map(at).collect::<Vec<_>>().join(" ")) {}
            }
        },
    )
}

fn drawn(caption: &Markup, content: &Markup) -> Markup {
    html! {
        figure.card {
            figcaption { (caption) }
            svg.chart viewBox=(format!("0 -2 {WIDTH} {}", HEIGHT + 4.0)) preserveAspectRatio="none" aria-hidden="true" {
                (content)
                line.axis x1="0" y1=(HEIGHT) x2=(WIDTH) y2=(HEIGHT) {}
            }
        }
    }
}

/// What happened within a point.
fn within(path: &str, point: &Point) -> String {
    let end = std::time::Duration::from_secs(60 * point.minutes);
    let until = point.at.saturating_add(end).unwrap_or(point.at);
    layout::link(path, &[("since", &point.at.to_string()), ("until", &until.to_string())])
}

fn short(number: f64) -> String {
    format!("{number:.1}")
}
