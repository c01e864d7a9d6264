//! Follows the file that the output `lines` appends to, as `tail -f` does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use crate::ledger::{Ledger, Output};

const LOOK: Duration = Duration::from_millis(100);

/// Reads for ever and enters every whole line into the ledger. The file is there.
pub async fn follow(path: PathBuf, ledger: Arc<Ledger>) -> Result<()> {
    let name = || format!("read {}", path.display());
    let mut file = File::open(&path).await.with_context(name)?;
    let mut bytes = Vec::new();
    loop {
        if file.read_buf(&mut bytes).await.with_context(name)? == 0 {
            sleep(LOOK).await;
            continue;
        }
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = bytes.drain(..=end).collect();
            ledger.receive(Output::Lines, &serde_json::from_slice(&line).context("a line that is not JSON")?);
        }
    }
}
