//! placeholder
pub fn sql_check() {}
