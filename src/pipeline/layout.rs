//! Which writers, tables and routes there are: laid out at the start, and again whenever the
//! configuration changes. Pure. What is known by its index keeps it for as long as the process
//! lives: rows under way refer to it, so nothing is ever removed. What is not wanted any more is
//! retired, and taken up again if it comes back.

use super::table::{LETTERS, Table};
use super::tally::{RouteTally, WriterTally};
use crate::config::{self, Action, Config};
use crate::route::RouteId;

/// Each changed mapping is another table here, and every turn of the owner looks at all of them:
/// far more than people change in the life of a process, and few enough to look at.
const MAX_TABLES: usize = 1_000;

/// Writers, tables and routes, in the order in which they came.
#[derive(Debug)]
pub(super) struct Layout {
    pub writers: Vec<WriterTally>,
    /// The first takes the dead letters.
    pub tables: Vec<Table>,
    pub routes: Vec<RouteTally>,
}

impl Layout {
    pub(super) fn new(config: &Config) -> Self {
        let tables = vec![Table::of_letters(&config.dead_letters)];
        let mut layout = Self { writers: Vec::new(), tables, routes: Vec::new() };
        layout.change(config, &[]);
        layout
    }

    /// Goes over to this configuration. Of the routes that go, those `left_over` keep their table:
    /// some of their records may be on their way.
    pub(super) fn change(&mut self, config: &Config, left_over: &[RouteId]) {
        for name in config.writers.keys() {
            if !self.writers.iter().any(|writer| writer.name == *name) {
                self.writers.push(WriterTally::new(name));
            }
        }
        for table in self.tables.iter_mut().skip(LETTERS + 1) {
            (table.retired, table.left_over) = (true, false);
            let writer = table.writer.map(|writer| &self.writers[writer].name);
            if let Some(limits) = writer.and_then(|name| config.writers.get(name)) {
                table.buffer.set_limits(*limits);
            }
        }
        for (index, route) in self.routes.iter_mut().enumerate() {
            let table = route.table.filter(|_| left_over.iter().any(|id| id.index() == index));
            route.retire(table);
            if let Some(table) = table {
                (self.tables[table].retired, self.tables[table].left_over) = (false, true);
            }
        }
        for (route, id) in config.routes.iter().zip(numbers(config, &self.routes)) {
            let table = match &route.action {
                Action::Count => None,
                Action::Insert(insert) => Some(self.table_of(config, insert)),
            };
            if id.index() == self.routes.len() {
                self.routes.push(RouteTally::new(route, table));
            } else {
                self.routes[id.index()].become_of(route, table);
            }
        }
        for table in &mut self.tables {
            let fills = |route: &&config::Route| route.streams_into(&table.name);
            table.streams = config.routes.iter().filter(fills).count();
        }
    }

    fn table_of(&mut self, config: &Config, insert: &config::InsertAction) -> usize {
        let writer = self.writers.iter().position(|writer| writer.name == insert.writer);
        let found = self.tables.iter().position(|table| takes(table, writer, insert));
        let index = found.unwrap_or_else(|| {
            let limits = config.writers[&insert.writer];
            let mut table = Table::new(&insert.table, writer, insert.format.clone(), limits);
            table.exactly_once = exactly_once(insert);
            self.tables.push(table);
            self.tables.len() - 1
        });
        (self.tables[index].retired, self.tables[index].left_over) = (false, false);
        index
    }
}

/// Whether what a route inserts by this writer goes into this table.
fn takes(table: &Table, writer: Option<usize>, insert: &config::InsertAction) -> bool {
    (table.writer, table.exactly_once) == (writer, exactly_once(insert))
        && (&table.name, &table.format) == (&insert.table, &insert.format)
}

fn exactly_once(insert: &config::InsertAction) -> Option<config::OnUncertain> {
    match insert.delivery {
        config::Delivery::AtLeastOnce => None,
        config::Delivery::ExactlyOnce { on_uncertain } => Some(on_uncertain),
    }
}

/// The numbers of the configuration's routes, in its order: a name keeps its number.
pub(super) fn numbers(config: &Config, known: &[RouteTally]) -> Vec<RouteId> {
    let mut next = known.len();
    let number = |route: &config::Route| {
        let index = known.iter().position(|known| known.name == route.name).unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        RouteId(u16::try_from(index).expect("there are fewer tables than that, and routes too"))
    };
    config.routes.iter().map(number).collect()
}

/// Why this configuration would be one too many in the life of this process. What is there already,
/// however much that is, is no reason.
pub(super) fn is_too_much(
    config: &Config,
    writers: &[WriterTally],
    tables: &[Table],
    routes: &[RouteTally],
) -> Option<String> {
    let there = |insert: &config::InsertAction| {
        let writer = writers.iter().position(|writer| writer.name == insert.writer);
        writer.is_some() && tables.iter().any(|table| takes(table, writer, insert))
    };
    let mut new_tables = Vec::new();
    for route in &config.routes {
        let Action::Insert(insert) = &route.action else { continue };
        let table = (&insert.writer, &insert.table, &insert.format, exactly_once(insert));
        if !there(insert) && !new_tables.contains(&table) {
            new_tables.push(table);
        }
    }
    let known = |route: &&config::Route| routes.iter().any(|known| known.name == route.name);
    let new_routes = config.routes.iter().filter(|route| !known(route)).count();
    let full = !new_tables.is_empty() && tables.len() + new_tables.len() > MAX_TABLES
        || routes.len() + new_routes > usize::from(u16::MAX);
    full.then(|| {
        "routes were changed so often since the start that no more can be told apart: restart the \
         bridge"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many routes with a table each.
    fn config(count: usize, more: &str) -> Config {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("c.toml");
        let route = |n| {
            format!("[[routes]]\nname = 'r{n}'\nkafka_topics = ['x{n}']\ntable = 't{n}{more}'\n")
        };
        let routes: String = (0..count).map(route).collect();
        std::fs::write(&file, format!("[kafka]\n{routes}")).unwrap();
        config::load(&[file]).unwrap()
    }

    #[test]
    fn however_many_tables_there_are_only_new_ones_are_too_much() {
        let first = config(600, "");
        let Layout { writers, tables, routes } = Layout::new(&first);
        let too_much = |config: &Config| is_too_much(config, &writers, &tables, &routes).is_some();
        assert!(!too_much(&first), "what is there already");
        assert!(!too_much(&config(300, "b")), "901 in all");
        assert!(too_much(&config(400, "b")), "1,001 in all");
    }
}
