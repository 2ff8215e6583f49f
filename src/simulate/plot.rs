//! The course of a run as an SVG picture: an own writer, because a picture of lines is a few dozen
//! lines of text, and the same run must give the same bytes on every machine.

use std::fmt::Write as _;

use super::report::Point;
use super::scenario::{Kind, Scenario};
use super::{Shape, float};
use crate::thousands::thousands;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 46.0;
/// Between two panels: the label of one, and air.
const GAP: f64 = 42.0;
/// More points than a line of 650 pixels needs.
const POINTS: usize = 300;
/// Distinct for those who see no red or no green, and on white and black paper.
const COLORS: [&str; 4] = ["#0b6bcb", "#d9480f", "#2b8a3e", "#862e9c"];

struct Series {
    name: String,
    dashed: bool,
    points: Vec<(f64, f64)>,
}

struct Panel {
    label: &'static str,
    series: Vec<Series>,
}

/// A picture of a run.
#[must_use]
pub fn plot(scenario: &Scenario, points: &[Point]) -> String {
    let points: Vec<&Point> = {
        let step = points.len().div_ceil(POINTS).max(1);
        points.iter().skip(step - 1).step_by(step).collect()
    };
    let panels = match &scenario.kind {
        Kind::Share(plan) => {
            vec![limits(&points, &plan.consumer), buffer(&points, plan.capacity)]
        }
        Kind::Stream(plan) => match plan.bucket {
            Some((rate, burst)) => {
                vec![admitted(&points, rate, float(burst)), buffer(&points, plan.capacity)]
            }
            None => vec![rates(&points), buffer(&points, plan.capacity)],
        },
        Kind::Bridge(plan) => {
            let limits = &plan.limits;
            let mut held = buffer(&points, limits.max_buffer_size);
            held.label = "records held";
            held.series.retain(|series| series.name != "waiting");
            held.series.push(flat(&points, "pause above", limits.pause_threshold));
            held.series.push(flat(&points, "resume below", limits.resume_threshold));
            vec![held, behind(&points)]
        }
    };
    let seconds = scenario.duration.as_secs_f64();
    draw(&format!("{}: {}", scenario.name, scenario.about), seconds, &panels)
}

fn series(name: &'static str, points: &[&Point], of: impl Fn(&Point) -> f64) -> Series {
    let points = points.iter().map(|point| (point.seconds, of(point))).collect();
    Series { name: name.to_owned(), dashed: false, points }
}

fn flat(points: &[&Point], name: &str, value: usize) -> Series {
    let name = format!("{name} {}", thousands(value));
    Series { name, dashed: true, ..series("", points, |_| float(value as u64)) }
}

fn limits(points: &[&Point], consumer: &Shape) -> Panel {
    let limit = |n: usize| move |point: &Point| point.rate_limits.get(n).copied().unwrap_or(0.0);
    let capacity = Series { dashed: true, ..series("capacity", points, |_| consumer.highest()) };
    let series = vec![
        series("limit of one", points, limit(0)),
        series("limit of the other", points, limit(1)),
        series("together", points, |point| point.rate_limits.iter().sum()),
        capacity,
    ];
    Panel { label: "records a second", series }
}

fn admitted(points: &[&Point], rate: f64, burst: f64) -> Panel {
    let bound = series("rate x t + burst", points, |point| rate * point.seconds + burst);
    let series = vec![
        series("let through", points, |point| float(point.admitted)),
        series("came", points, |point| float(point.came)),
        Series { dashed: true, ..bound },
    ];
    Panel { label: "records since the beginning", series }
}

fn rates(points: &[&Point]) -> Panel {
    let mut before = (0.0, 0);
    let mut came = Vec::new();
    for point in points {
        let (seconds, count) = (point.seconds - before.0, point.came - before.1);
        came.push((point.seconds, float(count) / seconds.max(1e-9)));
        before = (point.seconds, point.came);
    }
    let limited = points.iter().any(|point| !point.rate_limits.is_empty());
    let mut all = vec![
        series("delivered", points, |point| point.throughput),
        Series { name: "comes".to_owned(), dashed: false, points: came },
    ];
    if limited {
        let limit = |point: &Point| point.rate_limits.iter().sum();
        all.push(series("rate limit", points, limit));
    }
    Panel { label: "records a second", series: all }
}

fn buffer(points: &[&Point], capacity: usize) -> Panel {
    let mut all = vec![series("in the buffer", points, |point| float(point.depth))];
    if points.iter().any(|point| point.waiting > 0) {
        all.push(series("waiting", points, |point| float(point.waiting)));
    }
    all.push(flat(points, "capacity", capacity));
    Panel { label: "records in the buffer, and waiting before it", series: all }
}

fn behind(points: &[&Point]) -> Panel {
    let series = vec![
        series("waits in Kafka", points, |point| float(point.waiting)),
        series("NATS dropped", points, |point| float(point.dropped)),
    ];
    Panel { label: "records", series }
}

fn draw(title: &str, seconds: f64, panels: &[Panel]) -> String {
    let count = float(panels.len() as u64);
    let height = TOP + count * (HEIGHT + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"14\" fill=\"#222\">{}</text>\n",
        escaped(title)
    );
    for (index, panel) in panels.iter().enumerate() {
        let top = TOP + float(index as u64) * (HEIGHT + GAP);
        draw_panel(&mut svg, panel, seconds, top);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The axes, and within them each line.
fn draw_panel(svg: &mut String, panel: &Panel, end: f64, top: f64) {
    let all = || panel.series.iter().flat_map(|series| &series.points);
    let (high, step) = scale(all().fold(0.0_f64, |most, point| most.max(point.1)));
    let (width, bottom) = (WIDTH - LEFT - RIGHT, top + HEIGHT);
    let x = |seconds: f64| LEFT + seconds / end * width;
    let y = |value: f64| bottom - value / high * HEIGHT;
    let mut put = |text: std::fmt::Arguments<'_>| {
        svg.write_fmt(text).expect("a String takes every write");
    };
    put(format_args!(
        "<text x=\"12\" y=\"{:.0}\" fill=\"#555\">{}</text>\n",
        top - 8.0,
        panel.label
    ));
    let mut value = 0.0;
    while value <= high + step / 2.0 {
        let at = y(value);
        put(format_args!(
            "<path d=\"M{LEFT:.0} {at:.1}H{:.0}\" stroke=\"#ddd\"/><text x=\"{:.0}\" y=\"{:.1}\" \
             text-anchor=\"end\" fill=\"#555\">{value:.0}</text>\n",
            LEFT + width,
            LEFT - 6.0,
            at + 4.0
        ));
        value += step;
    }
    for quarter in 0..=4 {
        let seconds = end / 4.0 * f64::from(quarter);
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#555\">{seconds:.0} s</text>\n",
            x(seconds),
            bottom + 16.0
        ));
    }
    for (index, series) in panel.series.iter().enumerate() {
        let color = if series.dashed { "#555" } else { COLORS[index % COLORS.len()] };
        let dashes = if series.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        put(format_args!(
            "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"1.6\"{dashes} points=\""
        ));
        for (seconds, value) in &series.points {
            put(format_args!("{:.1},{:.1} ", x(*seconds), y(*value)));
        }
        let line = top + 12.0 + 18.0 * float(index as u64);
        let right = LEFT + width + 10.0;
        put(format_args!(
            "\"/>\n<path d=\"M{right:.0} {:.0}h18\" stroke=\"{color}\" stroke-width=\"2\"{dashes}/>\
             <text x=\"{:.0}\" y=\"{line:.0}\" fill=\"#222\">{}</text>\n",
            line - 4.0,
            right + 24.0,
            series.name
        ));
    }
}

/// The top of an axis, and the distance of its lines: 1, 2 or 5 and zeros, four to ten of them.
fn scale(most: f64) -> (f64, f64) {
    let mut step = 1.0;
    let factors = [2.0, 2.5, 2.0];
    for turn in 0_usize.. {
        if most / step <= 6.0 {
            break;
        }
        step *= factors[turn % 3];
    }
    ((most / step).ceil().max(1.0) * step, step)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
