//! The report as one self-contained SVG: goodput and operations over time, percentile spectra.
//!
//! Written by hand: lines, text and a style sheet that follows the viewer's light or dark scheme.
//! Panels without data are left out.

use std::fmt::Write;

use super::hist::Latency;
use super::json::Interval;
use super::plot::{decades, percentage};
use super::units;

const WIDTH: f64 = 840.0;
const PANEL: f64 = 300.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 50.0;

/// Colours that remain distinct to colour-blind readers and on both backgrounds.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

const STYLE: &str = "text{font:12px sans-serif;fill:#222}.t{font-size:15px;font-weight:bold}\
.g{stroke:#ddd}.a{stroke:#222}.l{fill:none;stroke-width:2;stroke-linejoin:round}\
.b{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#ddd}.g{stroke:#444}.a{stroke:#ddd}\
.b{fill:#181818}}";

/// A tick: where on the axis (0 to 1) and what it says.
type Tick = (f64, String);

/// A named line; coordinates run from 0 to 1, upward.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

struct Panel {
    title: String,
    x_label: &'static str,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    lines: Vec<Line>,
}

/// The whole document. `title` names the run; a name stands beside each latency distribution.
pub fn document(title: &str, intervals: &[Interval], latencies: &[(&str, &Latency)]) -> String {
    let goodput = over_time("Goodput", intervals, units::bits_per_second, |i| {
        i.goodput_bits_per_second
    });
    let operations = over_time("Operations per second", intervals, units::count, |i| {
        i.operations_per_second
    });
    let panels: Vec<Panel> = [goodput, operations, spectra(latencies)]
        .into_iter()
        .flatten()
        .collect();
    let height = 40.0 + PANEL * panels.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\">\n<style>{STYLE}</style>\n\
         <rect class=\"b\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"t\" x=\"20\" y=\"26\">{}</text>\n",
        escape(title)
    );
    for (n, panel) in panels.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = panel.draw(&mut out, 40.0 + PANEL * n as f64);
    }
    out + "</svg>\n"
}

/// A rate over time, one line per workload that has any of it.
fn over_time(
    title: &str,
    intervals: &[Interval],
    format: impl Fn(f64) -> String,
    value: impl Fn(&Interval) -> f64,
) -> Option<Panel> {
    let top = intervals.iter().map(&value).fold(0.0, f64::max);
    let end = intervals.iter().map(|i| i.end_seconds).fold(0.0, f64::max);
    if top <= 0.0 || end <= 0.0 {
        return None;
    }
    let (x_step, y_step) = (nice_step(end), nice_step(top));
    let y_end = (top / y_step).ceil() * y_step;
    let mut lines: Vec<Line> = Vec::new();
    for interval in intervals {
        let workload = interval.workload.as_str();
        let at = lines
            .iter()
            .position(|l| l.name == workload)
            .unwrap_or_else(|| {
                lines.push(Line {
                    name: workload.into(),
                    points: Vec::new(),
                });
                lines.len() - 1
            });
        let y = value(interval) / y_end;
        let steps = [
            (interval.start_seconds / end, y),
            (interval.end_seconds / end, y),
        ];
        lines[at].points.extend(steps);
    }
    lines.retain(|l| l.points.iter().any(|(_, y)| *y > 0.0));
    Some(Panel {
        title: title.into(),
        x_label: "seconds",
        x_ticks: ticks(end, end, x_step, |s| trimmed(s, x_step)),
        y_ticks: ticks(y_end, y_end, y_step, format),
        lines,
    })
}

/// Percentile spectra on logarithmic axes.
fn spectra(latencies: &[(&str, &Latency)]) -> Option<Panel> {
    let latencies: Vec<_> = latencies.iter().filter(|(_, l)| !l.is_empty()).collect();
    let nines = latencies
        .iter()
        .map(|(_, l)| decades(l.count()))
        .fold(0.0, f64::max);
    let low = latencies.iter().map(|(_, l)| l.at(0.0).max(1)).min()?;
    let high = latencies.iter().map(|(_, l)| l.at(1.0).max(1)).max()?;
    let (low, high) = ((low as f64).log10().floor(), (high as f64).log10().ceil());
    let high = high.max(low + 1.0);
    let y = |ns: u64| ((ns.max(1) as f64).log10() - low) / (high - low);
    let lines = latencies.iter().map(|(name, latency)| Line {
        name: name.to_string(),
        points: latency
            .spectrum(10)
            .into_iter()
            .map(|(quantile, ns)| {
                let x = (-(1.0 - quantile).log10()).min(decades(latency.count()));
                (x / nines, y(ns))
            })
            .collect(),
    });
    let decade = |n: i32| {
        let tick = 10u64.saturating_pow(n.unsigned_abs());
        (
            (f64::from(n) - low) / (high - low),
            units::nanoseconds(tick),
        )
    };
    Some(Panel {
        title: "Latency by percentile".into(),
        x_label: "percentile",
        x_ticks: (0..=nines as u32)
            .map(|n| (f64::from(n) / nines, percentage(n)))
            .collect(),
        y_ticks: (low as i32..=high as i32).map(decade).collect(),
        lines: lines.collect(),
    })
}

impl Panel {
    fn draw(&self, out: &mut String, top: f64) -> std::fmt::Result {
        let (bottom, right) = (top + PANEL - BOTTOM, WIDTH - RIGHT);
        let x = |part: f64| LEFT + part * (right - LEFT);
        let y = |part: f64| bottom - part * (bottom - top - TOP);
        let (title_y, legend_y) = (top + 24.0, top + 46.0);
        writeln!(
            out,
            "<text class=\"t\" x=\"20\" y=\"{title_y}\">{}</text>",
            escape(&self.title)
        )?;
        for (part, label) in &self.y_ticks {
            let y = y(*part);
            let text_y = y + 4.0;
            writeln!(
                out,
                "<path class=\"g\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text x=\"{:.1}\" y=\"{text_y:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 8.0
            )?;
        }
        for (part, label) in &self.x_ticks {
            let (x, end, text_y) = (x(*part), bottom + 5.0, bottom + 20.0);
            writeln!(
                out,
                "<path class=\"a\" d=\"M{x:.1} {bottom}V{end}\"/>\
                 <text x=\"{x:.1}\" y=\"{text_y}\" text-anchor=\"middle\">{label}</text>"
            )?;
        }
        writeln!(
            out,
            "<path class=\"a\" d=\"M{LEFT} {bottom}H{right}\"/>\
             <text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            bottom + 38.0,
            self.x_label
        )?;
        let mut legend_x = LEFT;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let name = escape(&line.name);
            let mut path = String::new();
            for (n, (px, py)) in line.points.iter().enumerate() {
                let command = if n == 0 { 'M' } else { 'L' };
                write!(path, "{command}{:.1} {:.1}", x(*px), y(*py))?;
            }
            writeln!(out, "<path class=\"l\" stroke=\"{colour}\" d=\"{path}\"/>")?;
            writeln!(
                out,
                "<path class=\"l\" stroke=\"{colour}\" d=\"M{legend_x:.1} {:.1}h16\"/>\
                 <text x=\"{:.1}\" y=\"{legend_y:.1}\">{name}</text>",
                legend_y - 4.0,
                legend_x + 22.0
            )?;
            legend_x += 40.0 + 7.0 * line.name.chars().count() as f64;
        }
        Ok(())
    }
}

/// A step of 1, 2 or 5 times a power of ten that divides `range` into at most six.
fn nice_step(range: f64) -> f64 {
    let rough = range / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|f| f * power >= rough * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// Ticks from 0 to `end` on an axis that ends at `full`.
fn ticks(end: f64, full: f64, step: f64, format: impl Fn(f64) -> String) -> Vec<Tick> {
    let count = (end / step + 1e-9).floor() as usize;
    (0..=count)
        .map(|n| n as f64 * step)
        .map(|value| (value / full, format(value)))
        .collect()
}

/// `value` with as many decimals as its step needs.
fn trimmed(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    format!("{value:.decimals$}")
}

fn escape(text: &str) -> String {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    text.replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn intervals() -> Vec<Interval> {
        let second = Duration::from_secs(1);
        (0..4)
            .map(|n| Interval::new("a<b", (second * n, second * (n + 1)), 1_000_000, 0, None))
            .collect()
    }

    fn latency() -> Latency {
        let mut latency = Latency::new();
        (1..=10_000).for_each(|n| latency.record_ns(n * 100));
        latency
    }

    /// Every element closes, in order; attributes are quoted. Enough of XML to catch a slip.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        for part in svg.split('<').skip(1) {
            let (tag, _) = part.split_once('>').expect("a closed tag");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            let name = tag.split([' ', '/']).next().unwrap_or_default();
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn panels_appear_for_what_was_measured() {
        let latency = latency();
        let svg = document("run \"1\" & more", &intervals(), &[("rr", &latency)]);
        assert_well_formed(&svg);
        assert!(svg.contains("run &quot;1&quot; &amp; more") && svg.contains("a&lt;b"));
        assert!(svg.contains(">Goodput<") && svg.contains(">Latency by percentile<"));
        assert!(!svg.contains(">Operations per second<"));
        for label in [
            ">8.00 Mbits/sec<",
            ">99.99%<",
            ">100 ns<",
            ">1.00 ms<",
            ">4<",
        ] {
            assert!(svg.contains(label), "{label} in {svg}");
        }
        assert!(svg.contains("height=\"640\""));
    }

    #[test]
    fn nothing_measured_is_an_empty_page() {
        let svg = document("nothing", &[], &[("none", &Latency::new())]);
        assert_well_formed(&svg);
        assert!(svg.contains("height=\"40\"") && !svg.contains("<path"));
    }

    #[test]
    fn a_single_latency_draws() {
        let mut latency = Latency::new();
        latency.record_ns(1);
        assert_well_formed(&document("one", &[], &[("one", &latency)]));
    }

    #[test]
    fn steps_are_round() {
        for (range, step) in [
            (10.0, 2.0),
            (6.0, 1.0),
            (0.9, 0.2),
            (7e9, 2e9),
            (31.0, 10.0),
        ] {
            assert!(
                (nice_step(range) / step - 1.0).abs() < 1e-9,
                "{range}: {}",
                nice_step(range)
            );
        }
        assert_eq!(trimmed(0.25, 0.05), "0.25");
        assert_eq!(trimmed(4.0, 2.0), "4");
    }
}
