//! What a partition's loop hears from outside: that it is to end, and whether the partition is still its own.

use crate::effect::EffectFault;
use crate::flow::FlowShared;
use crate::source::{Source, SourceError, SourcePartition};
use crate::start::{StartError, Stop};
use recount_model::reason;
use std::time::Duration;
use tokio::sync::watch;

/// Whether a loop was asked to end: with its flow, or alone, since its partition was dealt to another process.
#[derive(Clone)]
pub(crate) struct Asked {
    shutdown: watch::Receiver<bool>,
    leave: watch::Receiver<bool>,
}

impl Asked {
    /// A loop that is also asked to leave alone.
    pub fn to_leave(shared: &FlowShared, leave: watch::Receiver<bool>) -> Self {
        Self { shutdown: shared.shutdown.clone(), leave }
    }

    /// A loop that ends with its flow.
    pub fn to_shut_down(shared: &FlowShared) -> Self {
        Self::to_leave(shared, shared.shutdown.clone())
    }

    /// Whether it was.
    pub fn is_asked(&mut self) -> bool {
        *self.shutdown.borrow_and_update() || *self.leave.borrow_and_update()
    }

    /// Returns as soon as it is, also where nobody is left who could ask.
    pub async fn comes(&mut self) {
        while !self.is_asked() {
            let heard = tokio::select! {
                biased;
                heard = self.shutdown.changed() => heard,
                heard = self.leave.changed() => heard,
            };
            if heard.is_err() {
                return;
            }
        }
    }

    /// Sleeps; true as soon as it is asked.
    pub async fn wait(&mut self, wait_ms: u64) -> bool {
        tokio::select! {
            biased;
            () = self.comes() => true,
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => false,
        }
    }
}

/// A partition of a source that deals its partitions out.
pub(crate) struct Dealt<'a> {
    pub source: &'a dyn Source,
    pub place: &'a SourcePartition,
    pub asked: Asked,
}

impl Dealt<'_> {
    /// Asks whether the partition is still dealt to this process.
    pub async fn confirm(&self) -> Result<(), StartError> {
        let mut asked = self.asked.clone();
        let confirmed = tokio::select! {
            biased;
            () = asked.comes() => return Err(StartError::Unconfirmed("it is to be left".to_owned())),
            confirmed = self.source.confirm(self.place) => confirmed,
        };
        match confirmed {
            Ok(true) => Ok(()),
            Ok(false) => Err(EffectFault::NotMine.into()),
            Err(SourceError::Away(why)) => Err(StartError::Unconfirmed(why)),
            Err(error) => Err(StartError::Stop(Stop::new(reason::SOURCE_CHANGED, error.to_string()))),
        }
    }
}
