//! Records counted by the route that they took. Pure.

use crate::route::RouteId;

/// How many records took which route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByRoute(Vec<usize>);

impl ByRoute {
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    #[must_use]
    pub fn of(&self, route: RouteId) -> usize {
        self.0.get(route.index()).copied().unwrap_or(0)
    }

    /// The routes' indices in the configuration, and their records; routes without any are left
    /// out.
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize)> {
        self.0.iter().copied().enumerate().filter(|(_, records)| *records > 0)
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (route, records) in other.iter() {
            *self.entry(route) += records;
        }
    }

    pub(super) fn entry(&mut self, route: usize) -> &mut usize {
        if self.0.len() <= route {
            self.0.resize(route + 1, 0);
        }
        &mut self.0[route]
    }
}
