//! An alert as `/health` has it.

use serde::Serialize;

use super::rfc3339;
use crate::alert::{self, AlertId, Severity};

/// An alert that fires; `id` and `of` together tell it from the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alert {
    pub id: AlertId,
    /// What it is about, where there can be several; else null.
    pub of: Option<String>,
    pub severity: Severity,
    /// When what it speaks of began; it fired later.
    pub since: String,
    pub summary: String,
    pub remedy: &'static str,
    /// Its entry in the runbook.
    pub runbook: String,
}

impl From<&alert::Alert> for Alert {
    fn from(alert: &alert::Alert) -> Self {
        let alert::Alert { id, of, since, summary, runbook } = alert.clone();
        let (severity, remedy) = (id.severity(), id.remedy());
        Self { id, of, severity, since: rfc3339(since), summary, remedy, runbook }
    }
}
