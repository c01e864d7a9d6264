//! What the terminal shows: a line for each step, then one line that is kept up to date, at the end a table.

use std::io::{IsTerminal, Write, stdout};

use crate::ledger::{Ledger, Output};

/// Standard output. A reader that goes away is no reason to stop.
pub struct Terminal {
    /// Somebody looks: lines can be rewritten and made bold.
    live: bool,
    /// The cursor stands behind a line that will be rewritten.
    pending: bool,
}

impl Terminal {
    /// Looks whether somebody looks.
    pub fn new() -> Terminal {
        Terminal { live: stdout().is_terminal(), pending: false }
    }

    /// Something that has been done: what, and where it is found.
    pub fn step(&mut self, what: &str, place: &str) {
        self.line(&format!("  {what:<44} {place}"));
    }

    /// The one line that matters.
    pub fn open(&mut self, url: &str) {
        let (bold, plain) = if self.live { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.line(&format!("\n  Open {bold}{url}{plain} and watch the orders arrive. Ctrl-C ends everything.\n"));
    }

    /// A line that stays.
    pub fn line(&mut self, text: &str) {
        let clear = if std::mem::take(&mut self.pending) { "\r\x1b[2K" } else { "" };
        print(&format!("{clear}{text}\n"));
    }

    /// How far each output is.
    pub fn status(&mut self, ledger: &Ledger) {
        let mut text = format!("  written {:>4}", ledger.written());
        for output in Output::ALL {
            let (name, plugin) = output.names();
            text += &format!("   {name} ({plugin}) {:>4}", ledger.count(output).received);
        }
        if self.live {
            print(&format!("\r\x1b[2K{text}"));
            self.pending = true;
        } else {
            self.line(&text);
        }
    }

    /// What each output has received of what was written.
    pub fn table(&mut self, ledger: &Ledger) {
        self.line(&format!(
            "\n  {:<8} {:<8} {:>9} {:>9} {:>9} {:>9}",
            "output", "plugin", "written", "received", "missing", "repeated"
        ));
        for output in Output::ALL {
            let ((name, plugin), count) = (output.names(), ledger.count(output));
            self.line(&format!(
                "  {name:<8} {plugin:<8} {:>9} {:>9} {:>9} {:>9}",
                ledger.written(),
                count.received,
                count.missing,
                count.repeated
            ));
        }
        self.line("");
    }
}

fn print(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
