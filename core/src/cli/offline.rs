//! Checkpoints without a running daemon: looked at and moved in their store. Whoever moves one holds the lease meanwhile, so that no
//! instance starts in between.

use serde_json::{Value, json};

use super::operate::Failure;
use crate::checkpoint::Store;
use crate::config::Config;
use crate::control::Target;
use crate::lease::metrics::LeaseMetrics;
use crate::lease::{Lease, Standing, Times};
use crate::pipeline::{arbiter, open_store};
use crate::source::connect::{Deployment, connect};
use crate::source::place::Place;
use crate::source::prepare;
use crate::source::stream::ChangeStream;

/// Connections for a question or two and the lease.
const CONNECTIONS: u32 = 4;

/// What the daemon would answer to `checkpoint list`.
pub(super) fn checkpoints(config: &Config) -> Result<Value, Failure> {
    block_on(async {
        let deployment = connect(config.source.uri.expose(), CONNECTIONS).await.map_err(refused)?;
        let store = open_store(config, &deployment).map_err(refused)?;
        let list = store.list().await.map_err(refused)?;
        let configured = |output: &str| config.outputs.iter().any(|known| known.name == output);
        let rows = list.iter().map(|(output, checkpoint)| checkpoint.to_json(output, configured(output)));
        Ok(json!({ "checkpoints": rows.collect::<Vec<_>>() }))
    })
}

/// Moves an output.
pub(super) fn set_checkpoint(config: &Config, output: &str, to: Target) -> Result<Value, Failure> {
    block_on(async {
        let held = Held::take(config, output).await?;
        let moved = held.set(config, output, to).await;
        held.lease.release().await;
        moved
    })
}

/// Forgets the place of an output.
pub(super) fn reset_checkpoint(config: &Config, output: &str) -> Result<Value, Failure> {
    block_on(async {
        let held = Held::take(config, output).await?;
        let removed = held.store.remove(output).await.map_err(refused);
        held.lease.release().await;
        removed.map(|()| json!({ "output": output, "place": "source.start, at its next start" }))
    })
}

/// The store, and the right to write into it.
struct Held {
    deployment: Deployment,
    store: Store,
    lease: Lease,
}

impl Held {
    async fn take(config: &Config, output: &str) -> Result<Held, Failure> {
        if !config.outputs.iter().any(|known| known.name == output) {
            return Err(refused(format!("no output {output} is configured")));
        }
        let deployment = connect(config.source.uri.expose(), CONNECTIONS).await.map_err(refused)?;
        let store = open_store(config, &deployment).map_err(refused)?;
        let lease = Lease::begin(arbiter(config, &deployment), Times::STANDARD, LeaseMetrics::default());
        let lease = lease.await.map_err(refused)?;
        let standing = lease.standing().borrow().clone();
        match standing {
            Standing::Holder { epoch } => Ok(Held { store: store.with_epoch(epoch), deployment, lease }),
            Standing::Standby { holder } => {
                let holder = holder.unwrap_or_else(|| "another instance".to_owned());
                Err(refused(format!(
                    "{holder} delivers: pause the output there (tailwater output pause {output} --admin URL), or end it"
                )))
            }
        }
    }

    async fn set(&self, config: &Config, output: &str, to: Target) -> Result<Value, Failure> {
        let place = Place::from(to);
        let options = prepare(self.deployment.client.clone(), &config.source).await.map_err(refused)?;
        if let Some(ahead) = place.time().seconds().checked_sub(self.deployment.now.seconds()).filter(|s| *s > 0) {
            return Err(refused(format!("that is {ahead} s ahead of the deployment's cluster time")));
        }
        // A place that the oplog does not hold would stop the output at its next step.
        ChangeStream::open(options, place.clone()).await.map_err(refused)?;
        self.store.save(output, &place, None).await.map_err(refused)?;
        Ok(json!({ "output": output, "place": place.to_string() }))
    }
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::Other(error.to_string())
}

fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| refused(format!("start the runtime: {e}")))?.block_on(future)
}
