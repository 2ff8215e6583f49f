//! Chooses the page that is embedded: the dashboard where `scripts/build-web` has built it, else
//! the plain status page, so that `cargo build` needs no Node.

use std::path::Path;
use std::{env, fs};

/// The folder is in git and is empty there, so that its changes can be watched.
const BUILT: &str = "web/dist";
const PLAIN: &str = "src/http/page.html";

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed={BUILT}");
    println!("cargo::rerun-if-changed={PLAIN}");
    let dashboard = Path::new(BUILT).join("index.html");
    let page = if dashboard.exists() { dashboard.as_path() } else { Path::new(PLAIN) };
    let out = env::var("OUT_DIR").map_err(std::io::Error::other)?;
    fs::copy(page, Path::new(&out).join("page.html"))?;
    Ok(())
}
