//! The files of a comparison: every run and the summaries as JSON, the tables, and the picture.
//! They have one name, with the time at which the comparison began, so that none replaces
//! another's.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};

use super::case::Case;
use super::noise::LIMIT_CORES;
use super::peer::Settings;
use super::rounds::Rounds;
use super::row::Row;
use super::targets::Verdict;
use super::{machine, stats, svg};
use crate::clock;
use crate::program::Profile;

/// Everything that one command found out.
pub struct Comparison<'a> {
    /// Settings of every run.
    pub settings: Settings,
    /// Rounds that had to count.
    pub rounds: usize,
    /// The rows.
    pub rows: &'a [Row],
    /// What was not built, and cases that could not be run.
    pub missing: &'a [String],
    /// The cases with their runs.
    pub results: &'a [(Case, Rounds)],
    /// What came of the targets.
    pub verdicts: &'a [Verdict],
    /// The tables, as they are shown.
    pub tables: &'a str,
}

impl Comparison<'_> {
    /// The document.
    pub fn to_json(&self, unix_seconds: u64, commit: Option<&str>) -> Value {
        let subject = self.rows.first().map_or("", |row| &row.name);
        let mut summaries = Vec::new();
        for (case, rounds) in self.results {
            for row in self.rows {
                if rounds.runs.iter().any(|run| run.peer == row.name) {
                    summaries.push(stats::to_json(rounds, case, subject, &row.name));
                }
            }
        }
        let rows = self.rows.iter().map(
            |row| json!({"name": row.name, "program": row.peer.program, "arguments": row.more}),
        );
        json!({
            "schema_version": 2,
            "unix_seconds": unix_seconds,
            "commit": commit,
            "machine": machine::describe(),
            "settings": {
                "profile": name(self.settings.profile),
                "rounds": self.rounds,
                "seconds": self.settings.seconds,
                "omit_seconds": self.settings.omit,
                "noise_limit_cores": LIMIT_CORES,
            },
            "rows": rows.collect::<Vec<_>>(),
            "left_out": self.missing,
            "targets": self.verdicts,
            "summaries": summaries,
            "runs": self.results.iter().flat_map(|(_, rounds)| &rounds.runs).collect::<Vec<_>>(),
        })
    }

    /// Writes all files, over what an earlier call wrote.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn save(&self, files: &Files) -> Result<(), String> {
        let document = self.to_json(files.unix_seconds, files.commit.as_deref());
        let text = serde_json::to_string_pretty(&document).map_err(|e| e.to_string())? + "\n";
        let title = format!(
            "corelane beside others, settings: {}, commit {}",
            name(self.settings.profile),
            files.of()
        );
        let picture = svg::document(&title, self.results, self.rows);
        let [json, tables, svg] = files.paths();
        fs::write(json, text)
            .and_then(|()| fs::write(tables, self.tables))
            .and_then(|()| fs::write(svg, picture))
            .map_err(|e| files.failed(&e))
    }
}

/// Where the results of one command go.
pub struct Files {
    directory: PathBuf,
    profile: String,
    unix_seconds: u64,
    commit: Option<String>,
}

impl Files {
    /// `<time>-<settings>-<commit>.json`, `.md` and `.svg` in `directory`, from now. `commit` is
    /// that of the build that is measured.
    ///
    /// # Errors
    /// When nothing can be written there, which is better known before measuring for hours.
    pub fn begin(directory: &Path, profile: Profile, commit: Option<&str>) -> Result<Self, String> {
        let files = Self {
            directory: directory.into(),
            profile: name(profile),
            unix_seconds: clock::unix_seconds(),
            commit: commit.map(String::from),
        };
        let [json, ..] = files.paths();
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(&json, ""))
            .and_then(|()| fs::remove_file(&json))
            .map_err(|e| files.failed(&e))?;
        Ok(files)
    }

    /// The document, the tables and the picture.
    pub fn paths(&self) -> [PathBuf; 3] {
        let (since, profile, of) = (self.unix_seconds, &self.profile, self.of());
        ["json", "md", "svg"].map(|kind| {
            let name = format!("{since}-{profile}-{of}.{kind}");
            self.directory.join(name)
        })
    }

    /// The settings.
    pub fn profile(&self) -> &str {
        &self.profile
    }

    fn of(&self) -> &str {
        self.commit.as_deref().unwrap_or("unknown")
    }

    fn failed(&self, error: &std::io::Error) -> String {
        format!("cannot write to {}: {error}", self.directory.display())
    }
}

fn name(profile: Profile) -> String {
    let value = profile.to_possible_value();
    value.map_or_else(String::new, |v| v.get_name().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::peer::PEERS;
    use crate::compare::rounds::tests::run;

    #[test]
    fn the_document_has_settings_rows_summaries_and_runs() {
        let row = |name: &str| Row {
            name: name.into(),
            role: PEERS[0].role,
            peer: &PEERS[0],
            path: "none".into(),
            more: vec!["--flag".into()],
        };
        let rounds = Rounds {
            runs: vec![
                run("corelane", 1, Some(12.0), 0.0),
                run("quinn", 1, Some(8.0), 0.0),
            ],
            clean: vec![1],
        };
        let results = [(Case::parse("bulk-up").unwrap(), rounds)];
        let comparison = Comparison {
            settings: Settings {
                seconds: 3.0,
                omit: 0.5,
                profile: Profile::Jumbo,
            },
            rounds: 5,
            rows: &[row("corelane"), row("quinn"), row("idler")],
            missing: &["noq is left out".into()],
            results: &results,
            verdicts: &[],
            tables: "",
        };
        let json = comparison.to_json(7, Some("abc"));
        for (pointer, expected) in [
            ("/settings/profile", "\"jumbo\""),
            ("/rows/2/name", "\"idler\""),
            ("/rows/0/arguments/0", "\"--flag\""),
            ("/left_out/0", "\"noq is left out\""),
            ("/summaries/1/peer", "\"quinn\""),
            (
                "/summaries/1/subject_over_peer/goodput_bits_per_second/median",
                "1.5",
            ),
            ("/runs/0/workload/goodput_bits_per_second", "12000000000.0"),
            ("/runs/0/noise_cores", "0.0"),
        ] {
            let value = json.pointer(pointer).map(ToString::to_string);
            assert_eq!(value.as_deref(), Some(expected), "{pointer}");
        }
        assert_eq!(json["summaries"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn a_directory_that_takes_nothing_is_known_at_the_beginning() {
        let directory = std::env::temp_dir().join(format!("corelane-out-{}", std::process::id()));
        let begin = |directory: &Path| Files::begin(directory, Profile::Tuned, Some("be3fa48640+"));
        let files = begin(&directory).unwrap();
        let [json, tables, svg] = files.paths();
        assert!(directory.is_dir() && !json.exists());
        for (path, end) in [(&json, "json"), (&tables, "md"), (&svg, "svg")] {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap();
            let expected = format!("{}-tuned-be3fa48640+.{end}", files.unix_seconds);
            assert_eq!(name, expected, "a commit with changes is not that commit");
        }
        fs::write(&svg, "").unwrap();
        let error = begin(&svg.join("below")).err();
        assert!(error.is_some_and(|e| e.starts_with("cannot write to ")));
        fs::remove_dir_all(directory).unwrap();
    }
}
