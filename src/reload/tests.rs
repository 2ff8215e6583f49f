//! A pipeline, or a file system, that does not answer.

use tokio::task::JoinSet;

use super::*;

const BASE: &str = "[kafka]\n[[routes]]\nname = 'x'\nkafka_topics = ['x']\ntable = 't'\n";

struct Scene {
    door: Door,
    notices: mpsc::Receiver<Notice>,
    /// Dropped, it ends.
    end: oneshot::Sender<()>,
    running: JoinSet<()>,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

fn begin() -> Scene {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, BASE).unwrap();
    let loaded = config::load_over(std::slice::from_ref(&file), None).unwrap();
    let (sender, notices) = mpsc::channel(4);
    let (files, set_log_level) = (vec![file.clone()], Box::new(|_| true));
    let (reloader, door) =
        Reloader::new(files, loaded, sender, set_log_level, |_, _| Ok(())).unwrap();
    let (end, ends) = oneshot::channel::<()>();
    let mut running = JoinSet::new();
    running.spawn(reloader.run(async { drop(ends.await) }));
    Scene { door, notices, end, running, file, _dir: dir }
}

fn other() -> Option<Layer> {
    let text = "[retry]\nmax_delay = '10s'\n".to_owned();
    Some(Layer { origin: "the test", extension: "toml", text })
}

impl Scene {
    async fn order(&mut self) -> Order {
        match self.notices.recv().await {
            Some(Notice::Apply(order)) => order,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_given_up_cannot_begin_any_more() {
    let mut scene = begin();
    let before = scene.door.in_force();
    let outcome = scene.door.ask("a test", other()).await;
    assert!(matches!(&outcome, Outcome::NotNow(why) if why.contains("not begun")), "{outcome:?}");
    let order = scene.order().await;
    assert!(order.begun.send(()).is_err(), "it would come into force, and nobody would know");
    assert_eq!(scene.door.in_force(), before);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_has_begun_is_waited_for() {
    let mut scene = begin();
    let door = scene.door.clone();
    let pipeline = async {
        let order = scene.order().await;
        order.begun.send(()).unwrap();
        tokio::time::sleep(2 * OWNER_WITHIN).await;
        order.answer.send(Ok(())).unwrap();
    };
    let (outcome, ()) = tokio::join!(door.ask("a test", other()), pipeline);
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
    assert!(door.in_force().contains("max_delay = \"10s\""), "{}", door.in_force());
}

/// Nobody writes into it, and whoever reads it waits.
fn hang(file: &PathBuf) {
    std::fs::remove_file(file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(file).status().unwrap().success());
}

/// The paused clock stands while a file is read, unless it is moved.
async fn while_time_passes<T>(asked: impl Future<Output = T>) -> T {
    let passes = async {
        loop {
            tokio::task::yield_now().await;
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        answer = asked => answer,
        () = passes => unreachable!("it has no end"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_system_that_hangs_takes_one_thread_however_often_it_is_asked() {
    let scene = begin();
    let door = &scene.door;
    hang(&scene.file);
    for said in ["within 10s", "still being read", "still being read"] {
        let outcome = while_time_passes(door.try_out(None)).await;
        assert!(matches!(&outcome, Outcome::NotNow(why) if why.contains(said)), "{outcome:?}");
    }
    std::fs::write(&scene.file, BASE).unwrap(); // the thread that reads ends with it
    std::fs::remove_file(&scene.file).unwrap();
    std::fs::write(&scene.file, BASE).unwrap();
    tokio::time::resume();
    let read = async {
        while !matches!(door.try_out(None).await, Outcome::Possible { .. }) {
            tokio::task::yield_now().await;
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(60), read).await;
    read.expect("it is read again once it can be");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_to_its_end_keeps_nothing_from_ending() {
    let Scene { door, end, mut running, file, _dir, .. } = begin();
    hang(&file);
    let ended = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(end);
        tokio::time::timeout(Duration::from_secs(5), running.join_next()).await
    };
    let (outcome, ended) = tokio::join!(door.ask("a test", None), ended);
    std::fs::write(&file, BASE).unwrap(); // or the thread that reads would never end
    assert!(matches!(ended, Ok(Some(Ok(())))), "it waits for the file");
    assert!(matches!(outcome, Outcome::NotNow(_)), "{outcome:?}");
}
