//! What `check` has to say, before it is shown: lines for servers, routes, topics and tables, and
//! findings that they refer to. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::source::ProbeError;

#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) servers: Vec<ServerLine>,
    pub(super) routes: Vec<RouteLine>,
    pub(super) topics: Vec<TopicLine>,
    pub(super) tables: Vec<TableLine>,
    /// In the order in which they were found.
    pub(super) findings: Vec<Finding>,
    pub(super) unreachable: bool,
    /// ClickHouse's limit for one insert; 0: none.
    pub(super) max_partitions: Option<u64>,
}

/// One thing to know or to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// One of [`super::codes::ALL`].
    pub(super) code: &'static str,
    pub(super) severity: Severity,
    pub(super) text: String,
    /// To be pasted into ClickHouse.
    pub(super) sql: Vec<String>,
    /// Those concerned, by their index.
    pub(super) routes: BTreeSet<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// A person has to mend something: exit code 1.
    Error,
    /// The bridge works; sooner or later somebody will wish to have known.
    Warning,
    Info,
}

#[derive(Debug)]
pub(super) struct ServerLine {
    pub(super) verdict: Verdict,
    pub(super) name: &'static str,
    pub(super) address: String,
    pub(super) says: String,
}

#[derive(Debug)]
pub(super) struct RouteLine {
    pub(super) verdict: Verdict,
    pub(super) name: String,
    pub(super) class: String,
    /// None: it counts.
    pub(super) table: Option<String>,
    /// Topics, where Kafka is configured.
    pub(super) kafka: Vec<String>,
    /// Subjects, where NATS is configured.
    pub(super) nats: Vec<String>,
    /// The same, out of streams.
    pub(super) jetstream: Vec<String>,
    /// It is published into.
    pub(super) publish: bool,
    /// It is configured to insert no record twice.
    pub(super) exactly_once: bool,
    /// Whether it could, and what that means; None where ClickHouse did not say.
    pub(super) exact: Option<Exact>,
    pub(super) sample: Option<Sample>,
}

/// What became of the sampled records of a route, without inserting them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) records: usize,
    pub(super) land: usize,
    /// Without a payload: they settle at once.
    pub(super) tombstones: usize,
    pub(super) letters: Vec<Letters>,
    /// Values that lost digits.
    pub(super) rounded: u32,
    /// Keys of payloads that go into no column, with the number of records that have them.
    pub(super) unused_keys: Vec<(String, usize)>,
    /// Columns for which no record had a value, and what they get instead.
    pub(super) unfilled: Vec<(String, &'static str)>,
    /// Bytes of a record, on average.
    pub(super) record_bytes: usize,
    /// Partitions of the table that the rows would go into.
    pub(super) partitions: Option<u64>,
}

/// Records of a sample that would become dead letters for the same reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letters {
    pub(super) reason: &'static str,
    pub(super) count: usize,
    /// Of the first one.
    pub(super) error: String,
}

/// Exactly once on a route: what holds, what does not, and what it costs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Exact {
    pub(super) conditions: Vec<Condition>,
    /// Only with a source that it needs.
    pub(super) figures: Option<Figures>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) code: &'static str,
    pub(super) holds: bool,
    pub(super) says: String,
    pub(super) sql: Option<String>,
}

/// What an insert per Kafka partition amounts to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    pub(super) kafka_partitions: usize,
    /// At most, with the configured thresholds.
    pub(super) rows_per_insert_max: usize,
    /// At the observed pace.
    pub(super) rows_per_insert: Option<f64>,
    pub(super) entries_per_second: Option<f64>,
    /// How long what the table remembers lasts at that pace.
    pub(super) window: Option<Duration>,
    /// Entries of the smallest window that an insert reaches.
    pub(super) window_entries: u64,
}

impl Exact {
    pub(super) fn is_possible(&self) -> bool {
        self.conditions.iter().all(|condition| condition.holds)
    }
}

#[derive(Debug)]
pub(super) struct TopicLine {
    pub(super) name: String,
    pub(super) partitions: usize,
    pub(super) pace: Option<f64>,
    pub(super) lag: Option<u64>,
    /// How long a record stays at that pace; None: for ever, or not known.
    pub(super) kept: Kept,
    pub(super) sampled: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Unknown,
    Forever,
    For(Duration),
}

#[derive(Debug)]
pub(super) struct TableLine {
    pub(super) name: String,
    pub(super) engine: String,
    pub(super) remembers: String,
    pub(super) partition_key: String,
    /// Tables that are written too.
    pub(super) views: usize,
}

/// With the indices of the findings that say why.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) grade: Grade,
    pub(super) findings: Vec<usize>,
}

/// Ordered: what is worse comes later.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    #[default]
    Well,
    /// It works, and somebody should read what there is to say.
    Warned,
    /// The bridge runs, and waits for something that nobody may have meant to be missing.
    Waits,
    /// A server did not answer: not known.
    Unknown,
    /// A person has to mend something.
    Wrong,
}

impl Verdict {
    fn add(&mut self, grade: Grade, finding: usize) {
        self.grade = self.grade.max(grade);
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

impl Report {
    /// 69 before 1: what could not be asked may be wrong as well.
    pub(super) fn exit_code(&self) -> u8 {
        match (self.unreachable, self.count(Severity::Error)) {
            (true, _) => crate::cli::Failure::UNAVAILABLE,
            (false, 0) => 0,
            (false, _) => 1,
        }
    }

    pub(super) fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// Errors and warnings are numbered, errors first: what a line refers to.
    pub(super) fn number(&self, finding: usize) -> Option<usize> {
        let severity = self.findings[finding].severity;
        let of = |severity| self.findings[..finding].iter().filter(move |f| f.severity == severity);
        match severity {
            Severity::Error => Some(of(severity).count() + 1),
            Severity::Warning => Some(self.count(Severity::Error) + of(severity).count() + 1),
            Severity::Info => None,
        }
    }

    pub(super) fn error(&mut self, code: &'static str, text: String) -> usize {
        self.find(code, Severity::Error, text, Vec::new())
    }

    pub(super) fn warn(&mut self, code: &'static str, text: String, sql: Vec<String>) -> usize {
        self.find(code, Severity::Warning, text, sql)
    }

    pub(super) fn info(&mut self, code: &'static str, text: String) -> usize {
        self.find(code, Severity::Info, text, Vec::new())
    }

    /// The index of this finding; the same words are the same finding.
    pub(super) fn find(
        &mut self,
        code: &'static str,
        severity: Severity,
        text: String,
        sql: Vec<String>,
    ) -> usize {
        debug_assert!(super::codes::ALL.contains(&code), "{code} is not listed");
        if let Some(index) = self.findings.iter().position(|known| known.text == text) {
            return index;
        }
        self.findings.push(Finding { code, severity, text, sql, routes: BTreeSet::new() });
        self.findings.len() - 1
    }

    /// The route's line refers to the finding from now on.
    pub(super) fn blame(&mut self, route: usize, grade: Grade, finding: usize) {
        self.routes[route].verdict.add(grade, finding);
        self.concern(route, finding);
    }

    /// The finding is about the route, which is well all the same.
    pub(super) fn concern(&mut self, route: usize, finding: usize) {
        self.findings[finding].routes.insert(route);
    }

    /// A server that said nothing of use: its line, and the finding.
    pub(super) fn server_failed(
        &mut self,
        name: &'static str,
        address: String,
        error: &ProbeError,
    ) -> usize {
        let (grade, says, code, text) = match error {
            ProbeError::Unreachable(why) => {
                self.unreachable = true;
                let text = format!("{name} at {address} cannot be reached: {why}");
                (Grade::Unknown, "cannot be reached", "unreachable", text)
            }
            ProbeError::Refused(why) => {
                (Grade::Wrong, "refuses", "refused", format!("{name}: {why}"))
            }
        };
        let finding = self.error(code, text);
        let mut verdict = Verdict::default();
        verdict.add(grade, finding);
        self.servers.push(ServerLine { verdict, name, address, says: says.to_owned() });
        finding
    }

    pub(super) fn server_answered(&mut self, name: &'static str, address: String, says: String) {
        self.servers.push(ServerLine { verdict: Verdict::default(), name, address, says });
    }
}
