//! What is let go, and in which order, when something must give.

mod auto;
mod config;
mod kept;
mod real;
mod tiers;
