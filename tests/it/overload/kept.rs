//! Routes that keep their latest while they are shut out, and deliver them when they go on.

use std::sync::{Arc, Mutex};

use data_bridge::pipeline::{Ending, Stop};

use crate::rig::sink::{Mode, ids_in};
use crate::rig::{NO_BREAKER, Rig};

/// A route of its own, before those of the rig: arrays of a later file replace the earlier.
const SLIDING: &str = r#"
[[routes]]
name = "quotes"
nats_subjects = ["quotes.>"]
class = "market"
writer = "aggregate"
table = "quotes"
format = "json"
overload = { strategy = "sliding", keep = 300 }
[[routes]]
name = "external"
nats_subjects = ["external.>"]
class = "external"
writer = "external"
table = "external"
format = "json"
"#;

async fn paused() -> Rig {
    let mut rig = Rig::nats_alone(&format!("{NO_BREAKER}{SLIDING}"));
    rig.sink.all(Mode::Hold);
    rig.nats().push("external.x", 40_001).await;
    rig.moment().await;
    assert!(rig.now().backpressure.active);
    rig
}

#[tokio::test(start_paused = true)]
async fn the_latest_wait_and_are_delivered_in_order_at_the_resume() {
    let mut rig = paused().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    rig.sink.inspect(move |insert| {
        if insert.table == "quotes" {
            seen.lock().unwrap().extend(ids_in(&insert.body));
        }
    });
    rig.nats().push("quotes.x", 1_000).await;
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!(now.backpressure.current_buffer, 40_301, "what waits counts as held");
    assert_eq!(now.sources["nats"].dropped["market"]["slid_out"], 700);
    rig.sink.all(Mode::Accept);
    let end = rig.drained().await;
    assert_eq!(end.routes["quotes"].inserted, 300);
    let latest: Vec<String> = (40_701..41_001).map(|n| format!("n/{n}")).collect();
    assert_eq!(*order.lock().unwrap(), latest, "after the 40,001 that filled the bridge");
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_delivered_at_the_stop() {
    let mut rig = paused().await;
    rig.nats().push("quotes.x", 200).await;
    rig.moment().await;
    rig.sink.all(Mode::Accept);
    let ending = rig.stop().await;
    assert_eq!(ending, Ending { abandoned: 0, closed: true, aborted: false });
    assert_eq!(rig.now().routes["quotes"].inserted, 200);
    rig.accounts_close();
}

#[tokio::test(start_paused = true)]
async fn what_waits_when_the_bridge_gives_up_is_counted_as_abandoned() {
    let mut rig = paused().await;
    rig.nats().push("quotes.x", 200).await;
    rig.moment().await;
    rig.tell(Stop::Abort);
    let ending = rig.ending().await;
    assert_eq!(ending.abandoned, 40_201);
    assert_eq!(rig.now().routes["quotes"].dropped, 200);
    rig.accounts_close();
}

#[tokio::test(start_paused = true)]
async fn few_large_records_wait_by_their_bytes() {
    let mut rig = Rig::nats_alone(&format!(
        "[backpressure]\nmax_buffer_bytes = \"10MiB\"\n[writers.aggregate]\nbatch_bytes = \"1MiB\"\n\
         [writers.external]\nbatch_bytes = \"1MiB\"\n{NO_BREAKER}{SLIDING}"
    ));
    rig.sink.all(Mode::Hold);
    rig.nats().push("external.x", 40_001).await;
    rig.moment().await;
    for _ in 0..30 {
        rig.nats().push_heavy("quotes.x", 100_000).await;
    }
    rig.moment().await;
    let now = rig.accounts_close();
    // A fifth of 10 MiB: half of the 40 % at which a pause ends.
    let room = 10 * 1024 * 1024 / 5;
    let held = now.routes["quotes"].held;
    assert!(held >= 10 && held * 100_000 <= room, "{held} of 100 kB wait");
    assert_eq!(now.routes["quotes"].dropped, 30 - held as u64);
    rig.sink.all(Mode::Accept);
    rig.drained().await;
}
