//! Tables as the commands print them: for a terminal of 100 columns and for a log, without lines
//! and colours. Pure.

use comfy_table::{ContentArrangement, Table, presets};

const COLUMNS: u16 = 100;

/// Between two columns.
const BLANKS: u16 = 2;

pub(super) fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(COLUMNS);
    table
}

/// Its lines, from the first column on.
pub(super) fn shown(table: Table) -> String {
    padded(table, 0)
}

/// Its lines, below what they belong to.
pub(super) fn indented(table: Table) -> String {
    padded(table, BLANKS)
}

fn padded(mut table: Table, before: u16) -> String {
    let last = table.column_count().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        let left = if index == 0 { before } else { 0 };
        column.set_padding((left, if index == last { 0 } else { BLANKS }));
    }
    table.trim_fmt()
}

/// Texts that may be longer than a line, with a mark before each.
pub(super) fn list(lines: impl IntoIterator<Item = (String, String)>) -> Table {
    let mut table = table();
    for (mark, text) in lines {
        table.add_row([mark, text]);
    }
    table
}
