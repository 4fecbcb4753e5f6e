//! The percentile spectrum as a few lines of text for a terminal.
//!
//! Both axes are logarithmic: to the right each step of one takes away nine tenths of what
//! remains (0 %, 90 %, 99 %, ...), upward is latency. Drawn in braille, eight dots a character.

use super::hist::Latency;
use super::units;

/// Width of the labels left of the axis.
const LABEL: usize = 8;

/// Draws `latency` in `width` by `height` characters, axes and labels not counted; empty when
/// nothing was recorded.
pub fn spectrum(latency: &Latency, width: usize, height: usize) -> String {
    if latency.is_empty() || width == 0 || height == 0 {
        return String::new();
    }
    let decades = decades(latency.count());
    let mut canvas = Canvas::new(width, height);
    let (columns, rows) = (width * 2, height * 4);
    let (low, high) = range(latency);
    let row = |ns: u64| {
        let part = ((ns.max(1) as f64).ln() - low) / (high - low);
        (part.clamp(0.0, 1.0) * (rows - 1) as f64).round() as usize
    };
    let mut previous = None;
    for column in 0..columns {
        let nines = decades * column as f64 / (columns - 1) as f64;
        let here = row(latency.at(1.0 - 10f64.powf(-nines)));
        // A step is drawn as a vertical line: the spectrum has no gaps.
        for dot in previous.unwrap_or(here)..=here {
            canvas.set(column, dot);
        }
        previous = Some(here);
    }
    let mut out = String::new();
    for line in 0..height {
        let label = match line {
            0 => units::nanoseconds(high.exp().round() as u64),
            n if n == height - 1 => units::nanoseconds(low.exp().round() as u64),
            n if n == height / 2 => units::nanoseconds((low.midpoint(high)).exp().round() as u64),
            _ => String::new(),
        };
        let tick = if label.is_empty() { '│' } else { '┤' };
        out += &format!("{label:>LABEL$} {tick}{}\n", canvas.line(line).trim_end());
    }
    out + &axis(decades, width)
}

/// Nines on the horizontal axis: enough for the rarest latency, at least two.
pub(super) fn decades(count: u64) -> f64 {
    (count as f64).log10().clamp(2.0, 9.0)
}

/// The logarithms of the lowest and highest latency, never equal.
fn range(latency: &Latency) -> (f64, f64) {
    let (low, high) = (latency.at(0.0).max(1) as f64, latency.at(1.0).max(1) as f64);
    if high > low {
        (low.ln(), high.ln())
    } else {
        (low.ln(), low.ln() + 1.0)
    }
}

/// The percentage that `nines` nines name: 0 %, 90 %, 99 %, 99.9 %.
pub(super) fn percentage(nines: u32) -> String {
    match nines {
        0 => "0%".into(),
        1 => "90%".into(),
        2 => "99%".into(),
        n => format!("99.{}%", "9".repeat(n as usize - 2)),
    }
}

/// The horizontal axis with a tick for each nine, labelled where there is room.
fn axis(decades: f64, width: usize) -> String {
    let (mut line, mut labels) = (vec!['─'; width], String::new());
    for nines in 0..=decades as u32 {
        let at = (f64::from(nines) / decades * (width - 1) as f64).round() as usize;
        line[at] = '┬';
        let label = percentage(nines);
        let used = labels.chars().count();
        if used <= at && at + label.len() <= width + LABEL {
            labels += &format!("{}{label} ", " ".repeat(at - used));
        }
    }
    let line: String = line.into_iter().collect();
    let indent = " ".repeat(LABEL + 1);
    format!("{indent}└{line}\n{indent} {}\n", labels.trim_end())
}

/// Dots, two by four to a character; the origin is at the lower left.
struct Canvas {
    width: usize,
    height: usize,
    cells: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            cells: vec![0; width * height],
        }
    }

    fn set(&mut self, x: usize, y: usize) {
        // The bits of U+2800 ff., by column and by row from the top.
        const DOTS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        let from_top = self.height * 4 - 1 - y;
        let cell = from_top / 4 * self.width + x / 2;
        self.cells[cell] |= DOTS[x % 2][from_top % 4];
    }

    fn line(&self, line: usize) -> String {
        let cells = &self.cells[line * self.width..][..self.width];
        let braille = |dots: u8| char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' ');
        cells
            .iter()
            .map(|dots| if *dots == 0 { ' ' } else { braille(*dots) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spectrum_rises_from_the_lower_left() {
        let mut latency = Latency::new();
        for n in 0..1000u32 {
            latency.record_ns(if n < 900 { 10_000 } else { 1_000_000 });
        }
        let expected = [
            " 1.00 ms ┤      ⢸⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉",
            "  100 µs ┤      ⢸",
            " 10.0 µs ┤⣀⣀⣀⣀⣀⣀⣸",
            "         └┬─────┬─────┬─────┬",
            "          0%    90%   99%   99.9%",
        ];
        let plot = spectrum(&latency, 19, 3);
        assert_eq!(plot.lines().collect::<Vec<_>>(), expected, "\n{plot}");
    }

    #[test]
    fn degenerate_distributions_draw() {
        let mut latency = Latency::new();
        assert_eq!(spectrum(&latency, 10, 2), "");
        latency.record_ns(0);
        assert_eq!(spectrum(&latency, 10, 2).lines().count(), 4);
        assert_eq!(spectrum(&latency, 1, 1).lines().count(), 3);
        assert_eq!(spectrum(&latency, 0, 5), "");
    }

    #[test]
    fn nines_have_names() {
        let names: Vec<String> = (0..5).map(percentage).collect();
        assert_eq!(names, ["0%", "90%", "99%", "99.9%", "99.99%"]);
    }
}
