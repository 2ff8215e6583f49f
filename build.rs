//! Chooses the pages that are embedded: those that `scripts/build-web` has built, else plain ones, so
//! that `cargo build` needs no Node.

use std::path::Path;
use std::{env, fs};

/// The folder is in git and is empty there, so that its changes can be watched.
const BUILT: &str = "web/dist";

/// What a page is called when it was built, the plain one, and what it is embedded as.
const PAGES: [(&str, &str, &str); 2] = [
    ("index.html", "src/http/page.html", "page.html"),
    ("live.html", "src/http/live/page.html", "live.html"),
];

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed={BUILT}");
    let out = env::var("OUT_DIR").map_err(std::io::Error::other)?;
    for (built, plain, name) in PAGES {
        println!("cargo::rerun-if-changed={plain}");
        let built = Path::new(BUILT).join(built);
        let page = if built.exists() { built.as_path() } else { Path::new(plain) };
        fs::copy(page, Path::new(&out).join(name))?;
    }
    Ok(())
}
