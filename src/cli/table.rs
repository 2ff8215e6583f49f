//! Tables as the commands print them: for a terminal of 100 columns and for a log, without lines
//! and colours; and texts from elsewhere, made fit for them. Pure.

use std::ops::Range;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

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

/// These columns are compared by their last digits.
pub(super) fn numbers_to_the_right(table: &mut Table, columns: Range<usize>) {
    for column in table.column_iter_mut().take(columns.end).skip(columns.start) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// Texts that may be longer than a line, with a mark before each.
pub(super) fn list(lines: impl IntoIterator<Item = (String, String)>) -> Table {
    let mut table = table();
    for (mark, text) in lines {
        table.add_row([mark, text]);
    }
    table
}

/// Without what would move the cursor of a terminal.
pub(super) fn one_line(text: &str, chars: usize) -> String {
    let clean = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut line: String = clean.take(chars + 1).collect();
    if line.chars().count() > chars {
        line.pop();
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_cannot_write_on_the_terminal_and_is_cut() {
        assert_eq!(one_line("a\u{1b}[2J\nb", 10), "a\u{fffd}[2J\u{fffd}b");
        assert_eq!(one_line("123456", 5), "12345…");
        assert_eq!(one_line("12345", 5), "12345");
    }
}
