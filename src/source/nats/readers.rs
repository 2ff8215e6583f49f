//! The readers of core NATS, and going over to others when the subjects change: the new ones are
//! connected and subscribed before those before them drain and leave, so that nothing is missed; as
//! members of the same queue groups they never bring a message twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::reader::Reader;
use super::subscriptions::Subscriptions;
use super::{Limits, options};
use crate::config::{self, Takes};
use crate::source::{SourcePort, Stage};
use crate::subject::SubjectPattern;

/// Tasks that read, and what it takes to have others in their place.
pub(super) struct Readers {
    pub(super) tasks: JoinSet<()>,
    /// None: they stay.
    present: Option<Present>,
}

/// What it takes to open readers, and what the present ones read.
pub(super) struct Present {
    config: config::Nats,
    instance: String,
    limits: Limits,
    port: SourcePort,
    changed: Arc<Notify>,
    /// Readers that are not drained.
    undrained: Arc<AtomicUsize>,
    /// Tells the present readers to drain and leave.
    leave: CancellationToken,
    /// Others, and those of `system`.
    subjects: (Vec<SubjectPattern>, Vec<SubjectPattern>),
}

/// Readers that were opened.
#[derive(Default)]
struct Opened {
    links: Vec<Link>,
    readers: Vec<Reader>,
    begun: Vec<oneshot::Receiver<()>>,
}

/// Lets those before leave as soon as all of the new ones read, or have gone themselves. A server
/// that is away is waited for.
async fn hand_over(begun: Vec<oneshot::Receiver<()>>, before: CancellationToken) {
    let mut read = true;
    for begun in begun {
        read &= begun.await.is_ok();
    }
    if read {
        tracing::info!(event = "nats_subjects_changed", "NATS: other subjects are read");
    }
    before.cancel();
}

impl Present {
    pub(super) fn new(
        config: &config::Nats,
        instance: &str,
        limits: Limits,
        port: SourcePort,
        changed: &Arc<Notify>,
    ) -> Self {
        Self {
            config: config.clone(),
            instance: instance.to_owned(),
            limits,
            port,
            changed: Arc::clone(changed),
            undrained: Arc::default(),
            leave: CancellationToken::new(),
            subjects: (Vec::new(), Vec::new()),
        }
    }

    /// Starts the first readers; gives their connections.
    pub(super) async fn start(
        mut self,
        subjects: &[SubjectPattern],
        system: &[SubjectPattern],
    ) -> anyhow::Result<(Vec<Link>, Readers)> {
        let mut opened = self.open(subjects, system, false).await?;
        let mut tasks = JoinSet::new();
        opened.spawn(&mut tasks, &self.undrained);
        Ok((opened.links, Readers { tasks, present: Some(self) }))
    }

    /// Readers for these subjects; they say when they have begun, if that is of interest.
    async fn open(
        &mut self,
        subjects: &[SubjectPattern],
        system: &[SubjectPattern],
        tell: bool,
    ) -> anyhow::Result<Opened> {
        let wishes = super::wishes(&self.config.queue_group, subjects, system);
        let mut opened = Opened::default();
        for wish in wishes {
            let name = format!("data-bridge {} {}", self.instance, wish.role);
            let commands = 2 * wish.patterns.len() + 64; // all that subscribing takes
            let Self { config, limits: Limits { capacity, drain_for }, port, changed, .. } = &*self;
            let (options, notes) =
                options::connect_options(config, &name, commands, *capacity, port, changed).await?;
            let client = options
                .connect(options::server_addresses(config)?)
                .await
                .context("connecting to NATS")?;
            let subscriptions = Subscriptions::open(&client, wish).await?;
            opened.links.push(Link::new(client.clone(), Arc::clone(&notes)));
            let leave = self.leave.clone();
            let mut reader =
                Reader::new(client, notes, subscriptions, port.clone(), *drain_for, leave);
            if tell {
                opened.begun.push(reader.tell_when_begun());
            }
            opened.readers.push(reader);
        }
        self.subjects = (subjects.to_vec(), system.to_vec());
        Ok(opened)
    }

    /// Other subjects are wanted, and the source does not stop.
    fn wanted(&self) -> Option<Arc<Takes>> {
        let wanted = self.port.wanted.borrow();
        let takes = wanted.takes.clone().filter(|_| wanted.stage == Stage::Running)?;
        ((&takes.subjects, &takes.system) != (&self.subjects.0, &self.subjects.1)).then_some(takes)
    }

    /// Goes over to them: the new connections first, so that nothing is missed in between.
    async fn go_over(&mut self, takes: &Takes) -> anyhow::Result<(Opened, CancellationToken)> {
        let before = std::mem::replace(&mut self.leave, CancellationToken::new());
        match self.open(&takes.subjects, &takes.system, true).await {
            Ok(opened) => Ok((opened, before)),
            Err(error) => {
                self.leave = before;
                Err(error)
            }
        }
    }
}

impl Opened {
    /// Its readers read from here on.
    fn spawn(&mut self, tasks: &mut JoinSet<()>, undrained: &Arc<AtomicUsize>) {
        undrained.fetch_add(self.readers.len(), Ordering::AcqRel);
        for reader in self.readers.drain(..) {
            tasks.spawn(reader.run(Arc::clone(undrained)));
        }
    }
}

impl From<JoinSet<()>> for Readers {
    /// Which stay.
    fn from(tasks: JoinSet<()>) -> Self {
        Self { tasks, present: None }
    }
}

impl Readers {
    /// Goes over to other subjects if some are wanted: gives the new connections.
    pub(super) async fn go_over(&mut self) -> anyhow::Result<Option<Vec<Link>>> {
        let Some(present) = &mut self.present else { return Ok(None) };
        let Some(takes) = present.wanted() else { return Ok(None) };
        let (mut opened, before) = Box::pin(present.go_over(&takes)).await?;
        opened.spawn(&mut self.tasks, &present.undrained);
        self.tasks.spawn(hand_over(opened.begun, before));
        Ok(Some(opened.links))
    }
}
