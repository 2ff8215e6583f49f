//! Whether an insert is there already: how far a table's memory of tokens reaches, and where it
//! does not, what its rows and ClickHouse's log of queries tell.

use std::time::Duration;

use serde::Deserialize;

use super::classify::UNKNOWN_TABLE;
use super::probe::literal;
use super::{ClickHouse, quoted};
use crate::schema::exactly_once::{Problem, exactly_once_problems};
use crate::schema::facts::TableFacts;
use crate::sink::{InsertError, Landed, LandedQuestion, Refusal, RowsFrom, Window};

impl ClickHouse {
    /// What the table and all that stands behind it remember: the shortest window, and the sum of
    /// the block numbers. The sum grows at least as fast as each of them, so that what was used of
    /// a window is never taken for less than it is.
    pub(super) async fn window_of(&self, table: &str) -> Result<Window, InsertError> {
        let facts = self.facts(table).await?;
        let problems = exactly_once_problems(&facts).into_iter().map(in_words).collect();
        let windows = || facts.reached().into_iter().filter_map(|reached| reached.window);
        let entries = windows().map(|window| window.entries).min().unwrap_or_default();
        let seconds = windows().filter_map(|window| window.seconds).min();
        let mut block = 0;
        for reached in facts.reached() {
            let name = format!("{}.{}", reached.place.database, reached.place.name);
            block += self.block_number(&name).await?.unwrap_or_default();
        }
        Ok(Window { entries, lasts: seconds.map(Duration::from_secs), block, problems })
    }

    /// Asks the table's own rows, then the log of queries.
    pub(super) async fn look_for(&self, asked: &LandedQuestion) -> Result<Landed, InsertError> {
        let facts = self.facts(&asked.table).await?;
        // Replicated tables write a token and its part as one.
        let may_be_robbed = facts.engine == "MergeTree" || facts.takes_rows_again();
        if asked.acknowledged && (facts.is_replicated() || !may_be_robbed) {
            return Ok(Landed::All);
        }
        let of_rows = match rows_of(&facts, &asked.from) {
            Ok(rows) => {
                let told = told_by_rows(&facts, asked, self.count_rows(asked, &rows).await?);
                if asked.acknowledged && told == Ok(Landed::All) {
                    self.look_behind_views(&facts, asked, &rows).await;
                }
                told
            }
            Err(why) => Err(why.to_owned()),
        };
        let why = match of_rows {
            Ok(landed) => return Ok(landed),
            Err(_) if asked.acknowledged => return Ok(Landed::All),
            Err(why) => why,
        };
        match self.logged(&asked.token).await? {
            Some(true) => Ok(Landed::All),
            Some(false) => {
                Ok(Landed::Unclear(format!("{why}, and system.query_log knows no such insert")))
            }
            None => Ok(Landed::Unclear(format!("{why}, and there is no system.query_log"))),
        }
    }

    /// A killed server may know a view's block and have none of its rows, while its table has them.
    /// Nothing can be inserted again for it alone; so that it is at least said.
    async fn look_behind_views(&self, facts: &TableFacts, asked: &LandedQuestion, rows: &str) {
        let targets = facts.reached().into_iter().skip(1);
        for target in targets.filter(|target| target.engine == "MergeTree") {
            let place = target.place.to_string();
            // One without the columns cannot be asked.
            let Ok(0) = self.count_at(&place, asked, rows).await else { continue };
            let LandedQuestion { table, first, last, .. } = asked;
            tracing::error!(
                event = "needs_person",
                table,
                target = place,
                "needs a person: {place}, behind a view of {table}, has none of the rows \
                 {rows} AND _offset BETWEEN {first} AND {last}, which the table has: unless the view \
                 leaves them all out, ClickHouse was killed while it wrote them; insert them into \
                 {place} by the SELECT of the view"
            );
        }
    }

    /// Different offsets of the range that are in the table.
    async fn count_rows(&self, asked: &LandedQuestion, rows: &str) -> Result<usize, InsertError> {
        self.count_at(&quoted(&asked.table), asked, rows).await
    }

    async fn count_at(
        &self,
        place: &str,
        asked: &LandedQuestion,
        rows: &str,
    ) -> Result<usize, InsertError> {
        let LandedQuestion { first, last, .. } = asked;
        let query = format!(
            "SELECT uniqExact(_offset) AS offsets FROM {place} WHERE {rows} \
             AND _offset BETWEEN {first} AND {last}",
        );
        let answer = self.text(&query, "JSONEachRow").await?;
        let counted = answer.lines().next().map(serde_json::from_str::<Counted>);
        match counted {
            Some(Ok(Counted { offsets })) => Ok(offsets),
            _ => Err(unreadable(&answer)),
        }
    }

    /// Whether an insert under this token ended well, as far as the log reaches back. None: there
    /// is no log, or we may not read it.
    async fn logged(&self, token: &str) -> Result<Option<bool>, InsertError> {
        let query = format!(
            "SELECT count() AS offsets FROM system.query_log WHERE type = 'QueryFinish' \
             AND Settings['insert_deduplication_token'] = {}",
            literal(token),
        );
        match self.text(&query, "JSONEachRow").await {
            Ok(answer) => {
                let counted = answer.lines().next().map(serde_json::from_str::<Counted>);
                Ok(counted.and_then(Result::ok).map(|counted| counted.offsets > 0))
            }
            // The log of queries may be off: then its table does not exist.
            Err(InsertError::Retry(refusal)) if refusal.code != Some(UNKNOWN_TABLE) => {
                Err(InsertError::Retry(refusal))
            }
            Err(_) => Ok(None),
        }
    }
}

/// The condition that picks the rows of one origin, or why there is none.
fn rows_of(facts: &TableFacts, from: &RowsFrom) -> Result<String, &'static str> {
    match from {
        RowsFrom::Partition { .. } if !facts.positions.locate_kafka() => {
            Err("it has no columns _topic, _partition and _offset")
        }
        RowsFrom::Partition { topic, number } => {
            Ok(format!("_topic = {} AND _partition = {number}", literal(topic)))
        }
        RowsFrom::Stream { .. } if !facts.positions.locate_stream() => {
            Err("it has no columns _topic and _offset")
        }
        RowsFrom::Stream { alone: false } => {
            Err("several streams fill it, whose rows it cannot tell apart")
        }
        // A record of a stream has a subject, and no topic.
        RowsFrom::Stream { alone: true } => Ok("ifNull(toString(_topic), '') = ''".to_owned()),
    }
}

#[derive(Deserialize)]
struct Counted {
    /// 64-bit numbers are numbers in JSONEachRow by default.
    offsets: usize,
}

/// What the number of offsets that are there says of the whole range.
fn told_by_rows(
    facts: &TableFacts,
    asked: &LandedQuestion,
    there: usize,
) -> Result<Landed, String> {
    let collapses = facts.engine != "MergeTree" && facts.engine != "ReplicatedMergeTree";
    match there {
        _ if there >= asked.rows => Ok(Landed::All),
        // If newer rows took the place of them all, nothing changes either.
        0 if asked.acknowledged && facts.takes_rows_again() => Ok(Landed::None),
        _ if facts.ttl.is_some() => Err(format!("it has {there} of them, and a TTL deletes rows")),
        _ if collapses => Err(format!(
            "it has {there} of them, and a {} may have merged the others away",
            facts.engine
        )),
        0 => Ok(Landed::None),
        _ if asked.acknowledged => Ok(Landed::Unclear(format!(
            "ClickHouse said that it has them all, and it has {there} of them"
        ))),
        _ => Err(format!("it has {there} of them")),
    }
}

fn in_words(problem: Problem) -> String {
    match problem.remedy_sql {
        Some(sql) => format!("{}; {sql}", problem.what),
        None => problem.what,
    }
}

fn unreadable(answer: &str) -> InsertError {
    let message = format!("cannot read the answer {answer:?}");
    InsertError::Retry(Refusal::without_code(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::facts::{Place, PositionColumns, Target, View};

    fn facts(engine: &str) -> TableFacts {
        TableFacts {
            place: Place { database: "m".to_owned(), name: "t".to_owned() },
            engine: engine.to_owned(),
            window: None,
            partition_key: String::new(),
            sorting_key: String::new(),
            version: None,
            ttl: None,
            views: Vec::new(),
            positions: PositionColumns::default(),
        }
    }

    fn asked() -> LandedQuestion {
        let (table, topic, token) = ("t".to_owned(), "p".to_owned(), "x".to_owned());
        let from = RowsFrom::Partition { topic, number: 0 };
        LandedQuestion { table, from, first: 0, last: 9, rows: 10, token, acknowledged: false }
    }

    #[test]
    fn rows_are_counted_only_where_they_can_be_told_from_those_of_others() {
        let mut located = facts("MergeTree");
        let (alone, partition) = (RowsFrom::Stream { alone: true }, asked().from);
        assert!(rows_of(&located, &alone).is_err());
        assert!(rows_of(&located, &partition).is_err());
        located.positions.topic = true;
        located.positions.offset = true;
        assert!(rows_of(&located, &alone).unwrap().contains("= ''"));
        assert!(rows_of(&located, &partition).is_err(), "there is no _partition");
        assert!(rows_of(&located, &RowsFrom::Stream { alone: false }).is_err());
        located.positions.partition = true;
        assert_eq!(rows_of(&located, &partition).unwrap(), "_topic = 'p' AND _partition = 0");
    }

    #[test]
    fn none_of_them_is_proof_only_where_rows_stay() {
        assert_eq!(told_by_rows(&facts("MergeTree"), &asked(), 0), Ok(Landed::None));
        assert!(told_by_rows(&facts("ReplacingMergeTree"), &asked(), 0).is_err());
        let mut ageing = facts("MergeTree");
        ageing.ttl = Some("time + toIntervalDay(1)".to_owned());
        assert!(told_by_rows(&ageing, &asked(), 0).is_err());
    }

    #[test]
    fn all_of_them_is_proof_everywhere_and_some_of_them_nowhere() {
        for engine in ["MergeTree", "ReplacingMergeTree"] {
            assert_eq!(told_by_rows(&facts(engine), &asked(), 10), Ok(Landed::All));
            assert!(told_by_rows(&facts(engine), &asked(), 4).is_err());
        }
    }
    #[test]
    fn an_acknowledgement_is_doubted_only_where_rows_are_certainly_missing() {
        let asked = LandedQuestion { acknowledged: true, ..asked() };
        let told = |engine, there| told_by_rows(&facts(engine), &asked, there);
        assert_eq!(told("MergeTree", 0), Ok(Landed::None));
        assert!(matches!(told("MergeTree", 4), Ok(Landed::Unclear(_))));
        assert!(told("ReplacingMergeTree", 4).is_err());
        assert!(told("ReplacingMergeTree", 0).is_err(), "an older row would win");
        let versioned = || {
            let version = Some("v".to_owned());
            TableFacts { version, ..facts("ReplacingMergeTree") }
        };
        assert_eq!(told_by_rows(&versioned(), &asked, 0), Ok(Landed::None));
        assert!(told_by_rows(&versioned(), &asked, 1).is_err(), "the others may be merged away");
        let unanswered = LandedQuestion { acknowledged: false, ..asked };
        assert!(told_by_rows(&versioned(), &unanswered, 0).is_err(), "that is on_uncertain's");
        let ageing = TableFacts { ttl: Some("t".to_owned()), ..versioned() };
        assert!(!ageing.takes_rows_again());
        let place = Place { database: "m".to_owned(), name: "w".to_owned() };
        let view = View { place, target: Target::Unknown };
        assert!(!TableFacts { views: vec![view], ..versioned() }.takes_rows_again());
    }
}
