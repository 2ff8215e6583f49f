//! What the policies of overload have come to stays, and what they hold goes on, whatever changes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::rig::shortage::Short;
use crate::rig::sink::{Mode, ids_in};
use crate::rig::{NO_BREAKER, Rig, Sources, config};

const HEARTBEAT: Duration = Duration::from_secs(5);

/// A route that keeps so many of its latest, and one that fills the bridge.
fn sliding(strategy: &str) -> String {
    format!(
        "{NO_BREAKER}[[routes]]\nname = \"quotes\"\nnats_subjects = [\"quotes.>\"]\n\
         class = \"market\"\nwriter = \"aggregate\"\ntable = \"quotes\"\nformat = \"json\"\n{strategy}\n\
         [[routes]]\nname = \"external\"\nnats_subjects = [\"external.>\"]\n\
         class = \"external\"\nwriter = \"external\"\ntable = \"external\"\nformat = \"json\"\n"
    )
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_a_sliding_window_is_stored_once_and_in_order_whatever_changes() {
    let keep = |count| sliding(&format!("overload = {{ strategy = \"sliding\", keep = {count} }}"));
    let mut rig = Rig::nats_alone(&keep(300));
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    rig.sink.inspect(move |insert| {
        if insert.table == "quotes" {
            seen.lock().unwrap().extend(ids_in(&insert.body));
        }
    });
    rig.sink.all(Mode::Hold);
    rig.nats().push("external.x", 40_001).await;
    rig.moment().await;
    rig.nats().push("quotes.x", 1_000).await;
    rig.moment().await;
    assert_eq!(rig.now().routes["quotes"].held, 300);
    // What waits goes on its way; the new window is smaller, and begins empty.
    rig.change_to(&config(Sources::Nats, &keep(100))).await.unwrap();
    rig.nats().push("quotes.x", 500).await;
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!((now.routes["quotes"].held, now.routes["quotes"].dropped), (400, 1_100));
    // And without a window nothing more waits.
    rig.change_to(&config(Sources::Nats, &sliding(""))).await.unwrap();
    rig.nats().push("quotes.x", 50).await;
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!((now.routes["quotes"].held, now.routes["quotes"].dropped), (400, 1_150));
    rig.sink.all(Mode::Accept);
    let end = rig.drained().await;
    assert_eq!((end.routes["quotes"].inserted, end.routes["quotes"].dropped), (400, 1_150));
    let latest: Vec<String> =
        (40_701..41_001).chain(41_401..41_501).map(|n| format!("n/{n}")).collect();
    assert_eq!(*order.lock().unwrap(), latest);
}

#[tokio::test(start_paused = true)]
async fn limits_that_were_chosen_go_on_from_where_they_are() {
    let auto = "[backpressure]\nthresholds = \"auto\"\nmemory_budget = \"204MiB\"\n";
    let mut rig = Rig::nats_alone(auto);
    for _ in 0..20 {
        rig.nats().push("market.x", 2_000).await;
        rig.after(HEARTBEAT).await;
    }
    let limits = |rig: &Rig| {
        let b = rig.now().backpressure.clone();
        let weight = b.auto.map(|auto| auto.record_bytes);
        ([b.max_buffer_size, b.pause_threshold, b.resume_threshold, b.pull_limit], weight)
    };
    rig.moment().await;
    let chosen = limits(&rig);
    rig.sink.all(Mode::Hold);
    rig.nats().push("market.x", 30_000).await;
    // Two of the largest batches are the least that is planned for: it is not the same plan.
    let other = format!(
        "{auto}warn_after = \"1m\"\n[writers.external]\nlinger = \"3s\"\nbatch_rows = 12_000\n"
    );
    rig.change_to(&config(Sources::Nats, &other)).await.unwrap();
    rig.moment().await;
    assert_eq!(limits(&rig), chosen, "what was learnt stays");
    assert_eq!(rig.accounts_close().backpressure.current_buffer, 30_000);
    let larger = auto.replace("204MiB", "2GiB");
    rig.change_to(&config(Sources::Nats, &larger)).await.unwrap();
    rig.moment().await;
    assert!(limits(&rig).0[0] > chosen.0[0], "planned anew");
    rig.change_to(&config(Sources::Nats, NO_BREAKER)).await.unwrap();
    rig.moment().await;
    assert_eq!(limits(&rig), ([50_000, 40_000, 20_000, 40_000], None), "as they are given");
    rig.sink.all(Mode::Accept);
    let end = rig.drained().await;
    assert_eq!((end.inserted(), end.dropped()), (70_000, 0));
}

#[tokio::test(start_paused = true)]
async fn batches_that_were_made_smaller_stay_so_unless_their_writer_is_another() {
    let adaptive = |rows, more| {
        format!(
            "{NO_BREAKER}[clickhouse]\nadaptive = true\n\
             [writers.aggregate]\nbatch_rows = {rows}\n{more}"
        )
    };
    let mut rig = Rig::nats_alone(&adaptive(2_000, ""));
    rig.sink.shortage.set(Some(Short::OfMemory { rows: 400 }));
    for _ in 0..4 {
        rig.nats().push("market.x", 2_000).await;
        rig.after(2 * HEARTBEAT).await;
    }
    let rows = |rig: &Rig| rig.now().overload.adaptive.as_ref().unwrap().batch_rows["candles"];
    let smaller = rows(&rig);
    assert!(smaller < 2_000, "{smaller}");
    let other = adaptive(2_000, "[retry]\nmax_delay = \"10s\"\n");
    rig.change_to(&config(Sources::Nats, &other)).await.unwrap();
    rig.moment().await;
    assert_eq!(rows(&rig), smaller, "configured as before");
    rig.change_to(&config(Sources::Nats, &adaptive(3_000, ""))).await.unwrap();
    rig.moment().await;
    assert_eq!(rows(&rig), 3_000, "configured anew");
    rig.sink.shortage.set(None);
    let end = rig.drained().await;
    assert_eq!((end.inserted(), end.dropped(), rig.sink.rows("candles")), (8_000, 0, 8_000));
}
