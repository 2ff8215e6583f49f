//! Watches what a process takes over time, and says whether it grows.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// The part of a watch that does not count: pools, caches and buffers fill to their bounds.
const WARM_UP: f64 = 0.2;

/// Over a whole watch; an allocator returns memory when it likes, and half of the buffers may be
/// full at one end and empty at the other.
const MAX_GROWTH_MIB: f64 = 16.0;

/// A connection more or less at either end.
const MAX_GROWTH_FILES: f64 = 4.0;

#[derive(Debug, Clone, Copy)]
struct Sample {
    at_s: f64,
    resident_mib: f64,
    files: f64,
}

/// How something developed: its slope by least squares, and what that makes of the whole time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trend {
    pub(crate) per_hour: f64,
    pub(crate) growth: f64,
    pub(crate) mean: f64,
    pub(crate) peak: f64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    pub(crate) memory_mib: Trend,
    pub(crate) files: Trend,
}

impl Watched {
    pub(crate) fn troubles(&self) -> Vec<String> {
        let found = [
            ("memory, MiB", self.memory_mib, MAX_GROWTH_MIB),
            ("file descriptors", self.files, MAX_GROWTH_FILES),
        ];
        let grows = found.iter().filter(|(_, trend, limit)| trend.growth > *limit);
        grows.map(|(what, trend, limit)| format!("{what}: {trend:?}, at most {limit}")).collect()
    }
}

pub(crate) struct Watch {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Vec<Sample>>,
}

impl Watch {
    #[expect(clippy::disallowed_methods, reason = "joined by finish")]
    pub(crate) fn start(pid: u32) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let began = Instant::now();
            let mut tick = interval(SAMPLE_EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut samples = Vec::new();
            while stopped.try_recv().is_err() {
                tick.tick().await;
                samples.push(sample(pid, began.elapsed()));
            }
            samples
        });
        Self { stop, task }
    }

    pub(crate) async fn finish(self) -> Watched {
        self.stop.send(()).expect("it samples until it is told to stop");
        let samples = self.task.await.unwrap();
        let from = samples.last().map_or(0.0, |last| last.at_s * WARM_UP);
        let warm: Vec<Sample> = samples.into_iter().filter(|s| s.at_s >= from).collect();
        Watched {
            memory_mib: trend(&warm, |sample| sample.resident_mib),
            files: trend(&warm, |sample| sample.files),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "of numbers far below 2^52")]
fn sample(pid: u32, at: Duration) -> Sample {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    Sample { at_s: at.as_secs_f64(), resident_mib: kib / 1024.0, files: files as f64 }
}

#[expect(clippy::cast_precision_loss, reason = "of numbers far below 2^52")]
fn trend(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> Trend {
    let count = samples.len() as f64;
    let mean_at = samples.iter().map(|s| s.at_s).sum::<f64>() / count;
    let mean = samples.iter().map(&of).sum::<f64>() / count;
    let covariance = samples.iter().map(|s| (s.at_s - mean_at) * (of(s) - mean)).sum::<f64>();
    let variance = samples.iter().map(|s| (s.at_s - mean_at).powi(2)).sum::<f64>();
    let slope = if variance > 0.0 { covariance / variance } else { 0.0 };
    let time = samples.last().map_or(0.0, |last| last.at_s - samples[0].at_s);
    let peak = samples.iter().map(of).fold(0.0, f64::max);
    Trend { per_hour: slope * 3_600.0, growth: slope * time, mean, peak }
}

#[test]
fn what_grows_slowly_under_much_noise_is_seen_and_noise_alone_is_not() {
    let watched = |leak_per_s: f64| {
        let samples: Vec<Sample> = (0..1_800)
            .map(f64::from)
            .map(|at_s| {
                let noise = (at_s * 0.7).sin() * 30.0;
                Sample { at_s, resident_mib: 100.0 + noise + leak_per_s * at_s, files: 40.0 }
            })
            .collect();
        let memory_mib = trend(&samples, |sample| sample.resident_mib);
        Watched { memory_mib, files: trend(&samples, |sample| sample.files) }
    };
    assert!(watched(0.0).troubles().is_empty(), "{:?}", watched(0.0));
    let leaking = watched(0.02);
    assert!((leaking.memory_mib.per_hour - 72.0).abs() < 2.0, "{leaking:?}");
    assert_eq!(leaking.troubles().len(), 1, "{leaking:?}");
}
