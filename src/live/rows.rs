//! Which records of a chunk, as runs: what is of one route mostly lies side by side. Pure.

use std::ops::Range;

/// Rows of a chunk, ascending. Those that are neighbours cost nothing one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rows {
    runs: Vec<Range<u32>>,
    count: usize,
}

impl Rows {
    /// The first so many of a chunk.
    pub(super) fn first(count: usize) -> Self {
        let mut rows = Self::default();
        rows.extend(0..count);
        rows
    }

    /// Rows behind all that are in it.
    pub(super) fn extend(&mut self, rows: Range<usize>) {
        self.count += rows.len();
        let row = |row| u32::try_from(row).expect("a chunk has fewer records");
        let rows = row(rows.start)..row(rows.end);
        match self.runs.last_mut() {
            Some(last) if last.end == rows.start => last.end = rows.end,
            _ => self.runs.push(rows),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = usize> {
        self.runs.iter().cloned().flatten().map(|row| row as usize)
    }

    /// The last so many are left.
    pub(super) fn keep_newest(&mut self, most: usize) {
        let mut surplus = self.count.saturating_sub(most);
        self.count -= surplus;
        self.runs.retain_mut(|run| {
            let cut = run.len().min(surplus);
            surplus -= cut;
            run.start += u32::try_from(cut).expect("it is no longer than a run");
            run.start < run.end
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(all: &[usize]) -> Rows {
        let mut rows = Rows::default();
        all.iter().for_each(|&row| rows.extend(row..row + 1));
        rows
    }

    #[test]
    fn neighbours_are_one_run_and_all_come_back_in_their_order() {
        let all = [0, 1, 2, 5, 7, 8];
        let rows = rows(&all);
        assert_eq!(rows.runs, [0..3, 5..6, 7..9]);
        assert!(rows.iter().eq(all));
        assert_eq!((rows.len(), rows.is_empty()), (6, false));
        assert_eq!(Rows::first(3).runs.as_slice(), std::slice::from_ref(&(0..3)));
        assert!(Rows::default().is_empty());
    }

    #[test]
    fn the_newest_are_kept() {
        for (most, left) in [(9, &[0, 1, 2, 5, 7, 8][..]), (4, &[2, 5, 7, 8]), (1, &[8]), (0, &[])]
        {
            let mut rows = rows(&[0, 1, 2, 5, 7, 8]);
            rows.keep_newest(most);
            assert!(rows.iter().eq(left.iter().copied()), "{most}: {rows:?}");
            assert_eq!(rows.len(), left.len());
        }
    }
}
