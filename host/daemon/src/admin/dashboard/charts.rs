//! Draws charts as SVG, with a scale beside them and the time below. For screen readers they are decoration:
//! the caption says what they show. Each column is a link to what it counts.

use maud::{Markup, html};
use posthouse_store::Point;

use super::layout;

/// Width and height of the drawing, in its own units.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 100.0;

/// A line of a chart: its class, and a value for each point. None leaves a gap.
type Line<'a> = (&'a str, &'a dyn Fn(&Point) -> Option<f64>);

/// A chart of columns in two colours, the second on top of the first.
pub(super) fn columns(
    points: &[Point],
    caption: &Markup,
    path: &str,
    values: &dyn Fn(&Point) -> [u64; 2],
) -> Markup {
    let most = points.iter().map(|point| values(point).iter().sum::<u64>()).max().unwrap_or(0);
    let top = scale(most as f64).max(2.0);
    let step = WIDTH / points.len().max(1) as f64;
    let drawing = html! {
        @for (n, point) in points.iter().enumerate() {
            @let [first, second] = values(point).map(|value| value as f64 / top * HEIGHT);
            @let x = n as f64 * step;
            a href=(within(path, point)) tabindex="-1" {
                title { (format!("{} UTC: {}", clock(point), values(point).iter().sum::<u64>())) }
                rect.none x=(short(x)) y="0" width=(short(step)) height=(short(HEIGHT)) {}
                rect.bar x=(short(x + step * 0.1)) y=(short(HEIGHT - first)) width=(short(step * 0.8)) height=(short(first)) {}
                rect.bar2 x=(short(x + step * 0.1)) y=(short(HEIGHT - first - second)) width=(short(step * 0.8)) height=(short(second)) {}
            }
        }
    };
    drawn(points, caption, whole, top, &drawing)
}

/// A chart of lines on one scale. `say` formats the numbers of the scale.
pub(super) fn lines(
    points: &[Point],
    caption: &Markup,
    path: &str,
    say: fn(f64) -> String,
    lines: &[Line<'_>],
) -> Markup {
    let values = points.iter().flat_map(|point| lines.iter().filter_map(|(_, value)| value(point)));
    let most = values.fold(0.0, f64::max);
    let top = if say(0.5) == whole(0.5) { scale(most).max(2.0) } else { scale(most) };
    let step = WIDTH / points.len().max(1) as f64;
    let drawing = html! {
        @for (n, point) in points.iter().enumerate() {
            a href=(within(path, point)) tabindex="-1" {
                title { (clock(point)) " UTC" @for (class, value) in lines { @if let Some(value) = value(point) { (format!(", {class} {}", say(value))) } } }
                rect.none x=(short(n as f64 * step)) y="0" width=(short(step)) height=(short(HEIGHT)) {}
            }
        }
        @for (class, value) in lines {
            @for run in runs(points, value) {
                @let dot = if run.first() == run.last() { " dot" } else { "" };
                polyline class=(format!("{class}{dot}")) points=(run.iter().map(|(n, value)| format!(
                    "{},{}", short((*n as f64 + 0.5) * step), short(HEIGHT - value / top * HEIGHT)
                )).collect::<Vec<_>>().join(" ")) {}
            }
        }
    };
    drawn(points, caption, say, top, &drawing)
}

/// The runs of consecutive points that have a value. A single point is doubled, so that its line is a dot.
fn runs(points: &[Point], value: &dyn Fn(&Point) -> Option<f64>) -> Vec<Vec<(usize, f64)>> {
    let mut runs: Vec<Vec<(usize, f64)>> = Vec::new();
    let mut open = false;
    for (n, point) in points.iter().enumerate() {
        match (value(point), runs.last_mut()) {
            (Some(value), Some(run)) if open => run.push((n, value)),
            (Some(value), _) => runs.push(vec![(n, value)]),
            (None, _) => {}
        }
        open = value(point).is_some();
    }
    for run in &mut runs {
        if let [alone] = run[..] {
            run.push(alone);
        }
    }
    runs
}

/// The top of a scale for values up to `most`: a round number whose half is round too; 1 for 0.
fn scale(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(most.log10().floor());
    [1.0, 2.0, 4.0, 10.0].into_iter().map(|step| step * power).find(|top| *top >= most).unwrap_or(most)
}

/// Formats a number of things.
pub(super) fn whole(number: f64) -> String {
    format!("{number:.0}")
}

fn drawn(points: &[Point], caption: &Markup, say: fn(f64) -> String, top: f64, drawing: &Markup) -> Markup {
    let middle = points.get(points.len() / 2);
    html! {
        figure.card {
            figcaption { (caption) }
            div.plot aria-hidden="true" {
                div.y { span { (say(top)) } span { (say(top / 2.0)) } span { "0" } }
                svg.chart viewBox=(format!("0 -1 {WIDTH} {}", HEIGHT + 2.0)) preserveAspectRatio="none" aria-hidden="true" {
                    @for y in [0.0, HEIGHT / 2.0] { line.grid-line x1="0" y1=(y) x2=(WIDTH) y2=(y) {} }
                    (drawing)
                    line.axis x1="0" y1=(HEIGHT) x2=(WIDTH) y2=(HEIGHT) {}
                }
                div.x {
                    span { @if let Some(first) = points.first() { (clock(first)) } }
                    span { @if let Some(middle) = middle { (clock(middle)) } }
                    span { @if let Some(last) = points.last() { (clock(last)) " UTC" } }
                }
            }
        }
    }
}

fn clock(point: &Point) -> String {
    point.at.strftime("%H:%M").to_string()
}

/// The link to what happened within a point.
fn within(path: &str, point: &Point) -> String {
    let end = std::time::Duration::from_secs(60 * point.minutes);
    let until = point.at.saturating_add(end).unwrap_or(point.at);
    layout::link(path, &[("since", &point.at.to_string()), ("until", &until.to_string())])
}

fn short(number: f64) -> String {
    format!("{number:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(p50_ms: Option<f64>) -> Point {
        Point {
            at: jiff::Timestamp::UNIX_EPOCH,
            minutes: 1,
            events: 0,
            made: 0,
            completed: 0,
            failed: 0,
            unfinished: 0,
            p50_ms,
            p95_ms: None,
            p99_ms: None,
        }
    }

    #[test]
    fn a_scale_ends_at_a_round_number_above_all() {
        for (most, top) in
            [(0.0, 1.0), (1.0, 1.0), (3.0, 4.0), (5.0, 10.0), (37.0, 40.0), (100.0, 100.0), (0.3, 0.4)]
        {
            assert!((scale(most) - top).abs() < 1e-9, "{most}: {}", scale(most));
        }
    }

    #[test]
    fn a_line_has_a_gap_where_nothing_ran() {
        let points: Vec<_> = [Some(1.0), None, Some(2.0), Some(3.0), None].map(point).into();
        assert_eq!(
            runs(&points, &|point| point.p50_ms),
            [vec![(0, 1.0), (0, 1.0)], vec![(2, 2.0), (3, 3.0)]]
        );
    }

    #[test]
    fn a_chart_of_nothing_has_a_scale_too() {
        let shown =
            lines(&[point(None)], &html! {}, "/", layout::millis, &[("p50", &|p| p.p50_ms)]).into_string();
        assert!(
            shown.contains("1.00 ms") && shown.contains("00:00 UTC") && !shown.contains("NaN"),
            "{shown}"
        );
        assert!(!shown.contains("polyline"), "{shown}");
    }
}
