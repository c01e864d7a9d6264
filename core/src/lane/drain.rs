//! The end of a lane: nothing new leaves, what is in flight may still end well, the last checkpoint is written, the plugin stops.

use std::time::Instant;

use tracing::warn;

use super::{Ended, Lane};

impl Lane {
    /// Nothing new leaves; what is in flight may still end well.
    pub(super) async fn drain(mut self, deadline: Instant) -> Ended {
        self.replays.drop_all();
        if !self.fenced {
            // The last part of the time belongs to the checkpoint and to the plugin's own end.
            let settle_until = deadline - deadline.saturating_duration_since(Instant::now()) / 4;
            self.finish(settle_until).await;
        }
        let in_flight = self.engine.live_in_flight();
        if !self.fenced && tokio::time::timeout_at(deadline.into(), self.last_save()).await.is_err() {
            warn!(output = self.config.name, "the last checkpoint could not be written in time");
        }
        self.tell_spells(Instant::now(), true);
        self.life.stop(deadline.saturating_duration_since(Instant::now())).await;
        Ended {
            output: self.config.name,
            unsettled: self.engine.settle().unsettled(),
            in_flight,
            oldest_unsettled: self.engine.oldest_unsettled(),
            durable: self.durable.place().clone(),
            fenced: self.fenced,
        }
    }

    /// Waits for what the plugin has, and for the dead letters that come of it.
    async fn finish(&mut self, until: Instant) {
        loop {
            let now = Instant::now();
            self.burial.begin(&self.engine, now);
            let answers = self.engine.in_flight() > 0 && self.life.is_up();
            let buries = self.burial.is_writing() || self.burial.due(&self.engine).is_some();
            if !answers && (!buries || self.engine.is_stopped()) {
                return;
            }
            let wake = self.burial.due(&self.engine).unwrap_or(until).min(until);
            tokio::select! {
                change = self.life.change(), if answers => self.on_change(change),
                saved = self.durable.saved() => self.on_saved(saved),
                buried = self.burial.done() => self.on_buried(buried),
                () = tokio::time::sleep_until(wake.into()) => if wake == until { return },
            }
        }
    }

    /// Tried again until the caller's deadline: a stepdown in the middle of a drain passes.
    async fn last_save(&mut self) {
        while self.durable.is_saving() || self.durable.has_moved(self.engine.settle()) {
            self.durable.save(self.engine.settle());
            if !self.durable.is_saving() {
                return;
            }
            let saved = self.durable.saved().await;
            self.on_saved(saved);
            if self.fenced {
                return;
            }
            tokio::time::sleep_until(self.durable.not_before().into()).await;
        }
    }
}
