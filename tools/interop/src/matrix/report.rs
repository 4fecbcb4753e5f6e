//! The matrix as Markdown, and as JSON.

use super::Peer;
use super::cell::{Cell, Outcome, Pair};
use serde::Serialize;
use std::fmt::{self, Write};

/// Every cell that was played.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order of cases, then pairs.
    pub cells: Vec<Cell>,
}

#[derive(Serialize)]
struct Row<'a> {
    case: &'a str,
    client: String,
    server: String,
    #[serde(flatten)]
    outcome: &'a Outcome,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<&'a str>,
}

impl Report {
    /// Cells that did not pass and whose reason is not known to be the peer's.
    pub fn unexplained(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(|c| {
            !matches!(c.outcome, Outcome::Passed(_) | Outcome::Absent) && c.known.is_none()
        })
    }

    /// All cells as a JSON array.
    ///
    /// # Errors
    /// None in practice.
    pub fn json(&self) -> serde_json::Result<String> {
        let rows: Vec<_> = self.cells.iter().map(Row::from).collect();
        serde_json::to_string_pretty(&rows)
    }

    fn pairs(&self) -> Vec<Pair> {
        let mut all = Vec::new();
        for cell in &self.cells {
            if !all.contains(&cell.pair) {
                all.push(cell.pair);
            }
        }
        all
    }

    fn cases(&self) -> Vec<&'static str> {
        let mut all: Vec<&'static str> = self.cells.iter().map(|c| c.case).collect();
        all.dedup();
        all
    }
}

impl<'a> From<&'a Cell> for Row<'a> {
    fn from(cell: &'a Cell) -> Self {
        Self {
            case: cell.case,
            client: cell.pair.client.to_string(),
            server: cell.pair.server.to_string(),
            outcome: &cell.outcome,
            seconds: (cell.took.as_secs_f64() * 10.0).round() / 10.0,
            known: cell.known,
        }
    }
}

/// The head of a column.
fn title(pair: Pair) -> String {
    match (pair.client, pair.server) {
        (Peer::Corelane, Peer::Corelane) => "itself".into(),
        (Peer::Corelane, server) => format!("{server} server"),
        (client, _) => format!("{client} client"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.pairs();
        let mut notes: Vec<String> = Vec::new();
        let heads: Vec<_> = pairs.iter().map(|p| title(*p)).collect();
        writeln!(f, "| corelane with | {} |", heads.join(" | "))?;
        writeln!(f, "|---{}|", "|---".repeat(pairs.len()))?;
        for case in self.cases() {
            write!(f, "| {case} ")?;
            for pair in &pairs {
                let cell = self
                    .cells
                    .iter()
                    .find(|c| c.case == case && c.pair == *pair);
                write!(
                    f,
                    "| {} ",
                    cell.map_or(String::new(), |c| mark(c, &mut notes))
                )?;
            }
            writeln!(f, "|")?;
        }
        writeln!(f, "\n✓ passed · – not offered by the peer · ✗ failed")?;
        for (n, note) in notes.iter().enumerate() {
            writeln!(f, "{}. {note}", n + 1)?;
        }
        Ok(())
    }
}

/// A cell's sign, with a reference to a note that says why, or what was measured.
fn mark(cell: &Cell, notes: &mut Vec<String>) -> String {
    let sign = match &cell.outcome {
        Outcome::Absent => return String::new(),
        Outcome::Passed(note) => {
            // The mean alone; the JSON has the rest.
            let rate = note.split_once(" ± ").map(|(mean, _)| mean);
            return rate.map_or("✓".into(), |mean| format!("✓ {mean}"));
        }
        Outcome::Failed(_) => "✗",
        Outcome::Unsupported(_) => "–",
    };
    let why = match (&cell.outcome, cell.known) {
        (_, Some(known)) => known.to_owned(),
        (Outcome::Unsupported(who), None) => format!("Not offered by {who}."),
        (Outcome::Failed(why), None) => {
            let mut text = format!("{}, {}: ", cell.case, title(cell.pair));
            let _ = write!(text, "{why}");
            text
        }
        _ => String::new(),
    };
    let n = notes.iter().position(|n| *n == why).unwrap_or_else(|| {
        notes.push(why);
        notes.len() - 1
    });
    format!("{sign} [{}]", n + 1)
}
