//! What was counted, as Markdown: layers of each part side by side, and the most expensive places.

use crate::count::Row;
use crate::layer::Layer;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What to sum up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Functions, with what they call.
    Function,
    /// Lines of source.
    Line,
}

/// The sum of one layer in one part.
pub fn layer(rows: &[Row], part: usize, layer: Layer) -> u64 {
    let of = rows
        .iter()
        .filter(|r| r.part == part && r.place.layer == layer);
    of.map(|r| r.count).sum()
}

/// The sum of the engine's layers in one part.
pub fn engine(rows: &[Row], part: usize) -> u64 {
    Layer::ALL
        .into_iter()
        .filter(|l| l.is_engine())
        .map(|l| layer(rows, part, l))
        .sum()
}

/// Layers as rows, parts as columns; each part with the number of units to divide by.
pub fn layers(rows: &[Row], parts: &[(&str, u64)]) -> String {
    let mut out = String::from("| layer |");
    for (name, _) in parts {
        let _ = write!(out, " {name} |");
    }
    let _ = write!(out, "\n|---|{}\n", "---:|".repeat(parts.len()));
    let mut line = |name: &str, sums: Vec<u64>| {
        if sums.iter().all(|sum| *sum == 0) {
            return;
        }
        let _ = write!(out, "| {name} |");
        for (sum, (_, units)) in sums.iter().zip(parts) {
            let _ = write!(out, " {:.1} |", per(*sum, *units));
        }
        out.push('\n');
    };
    let each = |of: &dyn Fn(usize) -> u64| (0..parts.len()).map(of).collect::<Vec<_>>();
    for l in Layer::ALL {
        line(l.name(), each(&|part| layer(rows, part, l)));
    }
    line("**the engine's own**", each(&|part| engine(rows, part)));
    out
}

/// The `n` most expensive places of one part.
pub fn top(rows: &[Row], part: usize, units: u64, by: By, n: usize) -> String {
    let mut sums: BTreeMap<(Layer, String), u64> = BTreeMap::new();
    for row in rows.iter().filter(|r| r.part == part) {
        let mut name = match by {
            By::Line if !row.place.line.is_empty() => row.place.line.clone(),
            _ => row.place.function.clone(),
        };
        if let Some(callee) = &row.callee {
            let _ = write!(name, " → {callee}");
        }
        *sums.entry((row.place.layer, name)).or_default() += row.count;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|((layer, name), sum)| (u64::MAX - sum, *layer, name.clone()));
    let what = match by {
        By::Function => "function",
        By::Line => "line",
    };
    let mut out = format!("| each | layer | {what} |\n|---:|---|---|\n");
    for ((layer, name), sum) in sums.into_iter().take(n) {
        let _ = writeln!(out, "| {:.1} | {layer} | {name} |", per(sum, units));
    }
    out
}

/// A share of a sum.
pub fn per(sum: u64, units: u64) -> f64 {
    sum as f64 / units.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Place;

    fn row(part: usize, layer: Layer, function: &str, callee: Option<&str>, count: u64) -> Row {
        Row {
            part,
            place: Place {
                layer,
                function: function.into(),
                line: "conn/x.rs:1".into(),
            },
            callee: callee.map(str::to_string),
            count,
        }
    }

    #[test]
    fn tables_divide_by_the_units_of_each_part() {
        let rows = [
            row(0, Layer::Conn, "a", None, 30),
            row(0, Layer::Memcpy, "a", Some("memcpy"), 50),
            row(1, Layer::Conn, "b", None, 8),
            row(1, Layer::Wire, "c", None, 4),
        ];
        assert_eq!(
            layers(&rows, &[("send", 10), ("receive", 4)]),
            "| layer | send | receive |\n|---|---:|---:|\n| memcpy | 5.0 | 0.0 |\n\
             | wire | 0.0 | 1.0 |\n| conn | 3.0 | 2.0 |\n| **the engine's own** | 3.0 | 3.0 |\n"
        );
        assert_eq!(
            top(&rows, 0, 10, By::Function, 1),
            "| each | layer | function |\n|---:|---|---|\n| 5.0 | memcpy | a → memcpy |\n"
        );
    }
}
