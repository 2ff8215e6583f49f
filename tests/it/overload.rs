//! What is let go, and in which order, when something must give.

mod adaptive;
mod auto;
mod config;
mod group;
mod kept;
mod real;
mod tiers;

#[expect(clippy::print_stderr, reason = "figures, for whoever runs it with --nocapture")]
fn show(figures: &str) {
    eprintln!("{figures}");
}
