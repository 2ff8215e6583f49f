//! A feed for tests, with one route, `candles`.

use std::sync::Arc;

use super::Live;
use crate::config::load;

/// With so much more in `[live]` and behind it.
pub(crate) fn live_with(more: &str) -> Arc<Live> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let text = format!(
        "[kafka]\n[[routes]]\nname = 'candles'\nkafka_topics = ['x']\ntable = 't'\n[live]\n{more}\n"
    );
    std::fs::write(&file, text).unwrap();
    let config = load(&[file]).unwrap_or_else(|error| panic!("{error}"));
    Arc::new(Live::new(config.live, &config.routes))
}
