//! The first start of every plugin.

use std::sync::Arc;

use futures::future::join_all;
use tracing::{error, info, warn};

use crate::admin::Readiness;
use crate::lane::life::{Change, Life};
use crate::output::PreparedOutput;
use crate::pipeline::PipelineError;
use crate::plugin::Port;

/// A plugin after its first attempt to start.
pub(super) struct StartedPlugin {
    /// Up, or trying on.
    pub life: Life,
    /// It can never start like this.
    pub stopped: bool,
}

/// One attempt for each. An output whose plugin did not start tries on by itself, or is stopped, while the others work.
pub(super) async fn start_plugins(
    outputs: &[PreparedOutput],
    readiness: &Readiness,
) -> Result<Vec<StartedPlugin>, PipelineError> {
    let starts = outputs.iter().map(|output| async move {
        let name = &output.config.name;
        let broadcast = output.library.descriptor().broadcast;
        let port = if broadcast { Port::of_broadcast } else { Port::new }(name, output.config.json);
        let condition = readiness.wait_for(&format!("plugin of {name}"));
        let mut life = Life::new(output.library.clone(), port, Arc::new(output.config.options.clone()), condition);
        let fatal = match life.change().await {
            Change::Fatal(reason) => Some(reason),
            Change::NotStarted { reason, wait } => {
                warn!(output = name, ?wait, "plugin did not start: {reason}; trying again");
                None
            }
            Change::Started => {
                info!(output = name, plugin = output.library.descriptor().name, "plugin started");
                None
            }
            // Not before a batch was handed out.
            Change::Outcome(_) => None,
        };
        if let Some(reason) = &fatal {
            life.is_awaited_no_more();
            error!(
                output = name,
                "output stopped: start its plugin: {reason}; mend the cause and start tailwater again"
            );
        }
        (StartedPlugin { life, stopped: fatal.is_some() }, fatal)
    });
    let (plugins, reasons): (Vec<_>, Vec<_>) = join_all(starts).await.into_iter().unzip();
    // With nothing to deliver to, a daemon that stays would only hide the trouble.
    match reasons.into_iter().zip(outputs).map(|(reason, output)| Some((reason?, output))).collect::<Option<Vec<_>>>() {
        Some(all) => match all.into_iter().next() {
            Some((reason, output)) => Err(PipelineError::Plugin { output: output.config.name.clone(), reason }),
            None => Ok(plugins),
        },
        None => Ok(plugins),
    }
}
