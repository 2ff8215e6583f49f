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
        let exactly_once = match insert.delivery {
            config::Delivery::AtLeastOnce => None,
            config::Delivery::ExactlyOnce { on_uncertain } => Some(on_uncertain),
        };
        let same = |table: &Table| {
            (table.writer, table.exactly_once) == (writer, exactly_once)
                && (&table.name, &table.format) == (&insert.table, &insert.format)
        };
        let index = self.tables.iter().position(same).unwrap_or_else(|| {
            let limits = config.writers[&insert.writer];
            let mut table = Table::new(&insert.table, writer, insert.format.clone(), limits);
            table.exactly_once = exactly_once;
            self.tables.push(table);
            self.tables.len() - 1
        });
        (self.tables[index].retired, self.tables[index].left_over) = (false, false);
        index
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

/// Why this configuration would be one too many in the life of this process.
pub(super) fn is_too_much(config: &Config, tables: usize, routes: usize) -> Option<String> {
    let most = config.routes.len();
    let full = tables + most > MAX_TABLES || routes + most > usize::from(u16::MAX);
    full.then(|| {
        "routes were changed so often since the start that no more can be told apart: restart the \
         bridge"
            .to_owned()
    })
}
