//! The comparison as one self-contained SVG: a panel for each case, a bar for each row.
//!
//! A bar is the median of the case's first number, the line across its end runs from the smallest
//! to the largest value. Written by hand; the style sheet follows the viewer's light or dark
//! scheme.

use std::fmt::Write as _;

use super::case::Case;
use super::peer::Role;
use super::rounds::Rounds;
use super::row::Row;
use super::stats::{self, Summary};

const WIDTH: f64 = 840.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 130.0;
const HEAD: f64 = 78.0;
const PANEL_HEAD: f64 = 46.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;

/// Distinct to colour-blind readers and on both backgrounds.
const STYLE: &str = "text{font:12px sans-serif;fill:#222}.t{font-size:15px;font-weight:bold}\
.n{fill:#666}.b{fill:#fff}.w{stroke:#222;stroke-width:1.5}.a{stroke:#bbb}\
.subject{fill:#0072b2}.variant{fill:#56b4e9}.quic{fill:#d55e00}.other{fill:#e69f00}\
.ceiling{fill:#999}@media(prefers-color-scheme:dark){text{fill:#ddd}.n{fill:#aaa}.b{fill:#181818}\
.w{stroke:#eee}.a{stroke:#555}}";

const LEGEND: [(Role, &str); 5] = [
    (Role::Subject, "corelane"),
    (Role::Variant, "corelane, other settings"),
    (Role::Quic, "other QUIC"),
    (Role::Other, "TCP and TLS"),
    (Role::Ceiling, "no protocol: a ceiling"),
];

/// One case with a bar for each row that has a number.
struct Panel<'a> {
    case: &'a Case,
    is_noisy: bool,
    bars: Vec<(&'a Row, Summary)>,
}

/// The whole document. Cases without a number are left out.
pub fn document(title: &str, results: &[(Case, Rounds)], rows: &[Row]) -> String {
    let panels: Vec<_> = results
        .iter()
        .map(|(case, rounds)| Panel::new(case, rounds, rows))
        .filter(|panel| !panel.bars.is_empty())
        .collect();
    let height = HEAD + panels.iter().map(Panel::height).sum::<f64>();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\">\n<style>{STYLE}</style>\n\
         <rect class=\"b\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"t\" x=\"20\" y=\"26\">{}</text>\n",
        escape(title)
    );
    legend(&mut out, &panels);
    let mut top = HEAD;
    for panel in &panels {
        panel.draw(&mut out, top);
        top += panel.height();
    }
    out + "</svg>\n"
}

fn legend(out: &mut String, panels: &[Panel]) {
    let mut x = 20.0;
    for (role, name) in LEGEND {
        let mut bars = panels.iter().flat_map(|panel| &panel.bars);
        if !bars.any(|(row, _)| row.role == role) {
            continue;
        }
        let _ = writeln!(
            out,
            "<rect class=\"{}\" x=\"{x:.1}\" y=\"40\" width=\"12\" height=\"12\"/>\
             <text x=\"{:.1}\" y=\"51\">{name}</text>",
            class(role),
            x + 18.0
        );
        x += 36.0 + 6.5 * name.chars().count() as f64;
    }
    let _ = writeln!(
        out,
        "<text class=\"n\" x=\"20\" y=\"70\">bars: medians; lines: smallest to largest</text>"
    );
}

impl<'a> Panel<'a> {
    fn new(case: &'a Case, rounds: &Rounds, rows: &'a [Row]) -> Self {
        let metric = &case.metrics()[0];
        let bars = rows
            .iter()
            .filter_map(|row| Some((row, stats::metric(rounds, &row.name, metric)?)));
        Self {
            case,
            is_noisy: rounds.clean.is_empty(),
            bars: bars.collect(),
        }
    }

    fn height(&self) -> f64 {
        PANEL_HEAD + STEP * self.bars.len() as f64
    }

    fn draw(&self, out: &mut String, top: f64) {
        let metric = &self.case.metrics()[0];
        let full = self.bars.iter().map(|(_, s)| s.max).fold(0.0, f64::max);
        let width = |value: f64| {
            let part = if full > 0.0 { value / full } else { 0.0 };
            part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
        };
        let better = if metric.more_is_better {
            "more"
        } else {
            "less"
        };
        let noisy = if self.is_noisy {
            "no quiet round: "
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "<text class=\"t\" x=\"20\" y=\"{:.1}\">{}</text>\
             <text class=\"n\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{noisy}{}, {better} is \
             better</text>",
            top + 30.0,
            escape(&self.case.title()),
            WIDTH - 20.0,
            top + 30.0,
            metric.head,
        );
        for (n, (row, s)) in self.bars.iter().enumerate() {
            let y = top + PANEL_HEAD - 4.0 + STEP * n as f64;
            let (middle, text) = (y + BAR / 2.0, y + BAR / 2.0 + 4.0);
            let (from, to) = (LEFT + width(s.min), LEFT + width(s.max));
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>\
                 <rect class=\"{}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>\
                 <path class=\"w\" d=\"M{from:.1} {middle:.1}H{to:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{text:.1}\">{}</text>",
                LEFT - 8.0,
                escape(&row.name),
                class(row.role),
                width(s.median),
                to + 8.0,
                metric.show(s.median),
            );
        }
        let (from, to) = (top + PANEL_HEAD - 8.0, top + self.height() - 6.0);
        let _ = writeln!(out, "<path class=\"a\" d=\"M{LEFT} {from:.1}V{to:.1}\"/>");
    }
}

fn class(role: Role) -> &'static str {
    match role {
        Role::Subject => "subject",
        Role::Variant => "variant",
        Role::Quic => "quic",
        Role::Other => "other",
        Role::Ceiling => "ceiling",
    }
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::peer::PEERS;
    use crate::compare::rounds::tests::run;

    fn rows() -> Vec<Row> {
        let row = |(name, role): (&str, Role)| Row {
            name: name.into(),
            role,
            peer: &PEERS[0],
            path: "none".into(),
            more: Vec::new(),
        };
        let all = [
            ("corelane", Role::Subject),
            ("a<b & \"c\"", Role::Quic),
            ("absent", Role::Other),
        ];
        all.map(row).to_vec()
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
    fn a_bar_stands_for_each_median_and_escapes_its_name() {
        let rounds = Rounds {
            runs: vec![
                run("corelane", 1, Some(10.0), 0.0),
                run("corelane", 2, Some(20.0), 0.0),
                run("corelane", 3, Some(14.0), 0.0),
                run("a<b & \"c\"", 1, Some(7.0), 0.0),
            ],
            clean: vec![1, 2, 3],
        };
        let results = [
            (Case::parse("bulk-up").unwrap(), rounds),
            (Case::parse("rr-1").unwrap(), Rounds::default()),
        ];
        let svg = document("tuned & more", &results, &rows());
        assert_well_formed(&svg);
        assert_eq!(svg.matches("height=\"16\"").count(), 2);
        assert!(svg.contains("a&lt;b &amp; &quot;c&quot;") && svg.contains(">14.00<"));
        assert!(svg.contains("Gbit/s, more is better") && !svg.contains("one at a time"));
        // The full width is the largest value, so the median of 14 has 0.7 of it.
        assert!(svg.contains("width=\"392.0\""), "{svg}");
        assert!(!svg.contains("TCP and TLS") && svg.contains("other QUIC"));
        assert!(!svg.contains("no quiet round"));
    }

    #[test]
    fn nothing_measured_is_an_empty_page() {
        let svg = document("nothing", &[], &rows());
        assert_well_formed(&svg);
        assert!(svg.contains("height=\"78\"") && !svg.contains("<path"));
    }
}
