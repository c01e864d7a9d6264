//! The outputs of the storm: their configuration, and the verifier's own reading of what each must get.

use std::path::Path;

use super::facts::Facts;
use super::receiver::Receiver;

/// Small, so that the bound is met and repeats stay few.
pub const AHEAD_MAX: usize = 1_000;

/// What becomes of an event that the receiver of `picky` rejects: `skip`, or `dead_letter`, and then the verifier wants it in the
/// database.
pub const ON_REJECT: &str = "dead_letter";

/// One output.
#[derive(Clone, Copy)]
pub struct Plan {
    pub name: &'static str,
    /// The query of its `match`, as TOML; empty for everything.
    query: &'static str,
    /// The same, by the verifier.
    pub wants: fn(&Facts) -> bool,
    /// Whether its events come in the order of the stream, and not only in that of each document.
    pub strict: bool,
    /// Whether its receiver rejects some events.
    pub rejects: bool,
    /// Its `concurrency`, with one event in each batch: so many may be on their way when a lease ends.
    pub handed_out_max: usize,
}

/// The webhooks, in the order of their receivers.
pub const WEBHOOKS: [Plan; 3] = [
    Plan { name: "all", query: "", wants: |_| true, strict: false, rejects: false, handed_out_max: 8 },
    Plan {
        name: "strict",
        query: "match = { operationType = { \"$ne\" = \"delete\" }, \"ns.coll\" = { \"$in\" = [\"items\", \"sentinels\"] } }\n",
        wants: |facts| facts.operation != "delete" && ["shop.items", "shop.sentinels"].contains(&&*facts.ns),
        strict: true,
        rejects: false,
        handed_out_max: 1,
    },
    Plan {
        name: "picky",
        query: "match = { operationType = { \"$in\" = [\"insert\", \"replace\", \"update\"] }, \"ns.coll\" = { \"$ne\" = \"items\" } }\n",
        wants: |facts| facts.operation != "delete" && facts.ns != "shop.items",
        strict: false,
        rejects: true,
        handed_out_max: 4,
    },
];

/// The output that writes JSON Lines.
pub const LINES: Plan = Plan {
    name: "lines",
    query: "match = { \"$or\" = [{ \"fullDocument.odd\" = true }, { operationType = \"update\" }] }\n",
    wants: |facts| facts.is_odd() || facts.operation == "update",
    strict: false,
    rejects: false,
    handed_out_max: 16,
};

/// All tables of the configuration of one run of the daemon. The receivers see which run a request is of, and each run has a
/// file of its own in `folder`: what a killed daemon has sent may arrive after the next one has begun.
pub fn tables(run: usize, receivers: &[Receiver], folder: &Path) -> String {
    // A small window, so that every outage sends its output into catch-up.
    let mut text = "[window]\nbytes_max = \"512KiB\"\n[checkpoint]\ninterval = \"100ms\"\n".to_owned();
    for (plan, receiver) in WEBHOOKS.iter().zip(receivers) {
        let url = receiver.url();
        text += &table(plan, "webhook");
        text += &format!(
            "[outputs.{}.options]\nurl = \"{url}\"\nheaders = {{ X-Run = \"{run}\" }}\ndeadline = \"2s\"\n\
             pause_default = \"100ms\"\npause_max = \"1s\"\nclient_error_tries = 2\n",
            plan.name
        );
    }
    let path = folder.join(lines_file(run));
    text + &table(&LINES, "stdout") + &format!("options = {{ path = {path:?} }}\n")
}

/// The file of one run.
pub fn lines_file(run: usize) -> String {
    format!("lines-{run}.jsonl")
}

fn table(plan: &Plan, plugin: &str) -> String {
    let ordering = if plan.strict { "strict" } else { "key" };
    let on_reject = if plan.rejects { format!("on_reject = \"{ON_REJECT}\"\n") } else { String::new() };
    format!(
        "[outputs.{}]\nplugin = \"{plugin}\"\nordering = \"{ordering}\"\n{}{on_reject}ahead_max = {AHEAD_MAX}\n\
         concurrency = {}\nretry = {{ backoff_min = \"20ms\", backoff_max = \"500ms\" }}\n",
        plan.name, plan.query, plan.handed_out_max
    )
}
