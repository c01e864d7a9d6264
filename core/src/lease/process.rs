//! Who a process is beyond its life, so that another one on the same machine can tell that it is dead: a lease need not run out for a
//! holder that crashed and was started again.
//!
//! Linux only: a process is named by the boot of its kernel, its process id namespace (two containers have the same numbers), its
//! number, and when it started (numbers are used again). All of it is compared, and only a process that is certainly gone, or a zombie,
//! which runs no code any more, counts as dead. Elsewhere nothing is known, and the lease runs out by itself.

use bson::{Document, doc};

/// A process, as it is stored beside the lease it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    boot: String,
    namespace: i64,
    id: i64,
    started: i64,
}

impl Process {
    /// This one; `None` where its system does not tell.
    pub fn own() -> Option<Process> {
        let id = std::process::id();
        let (started, _) = started(id)?;
        Some(Process { boot: boot()?, namespace: namespace()?, id: i64::from(id), started })
    }

    /// True only for a process that was on this machine and can never run again.
    pub fn is_dead(&self) -> bool {
        let here = boot().is_some_and(|boot| boot == self.boot) && namespace() == Some(self.namespace);
        let Some(id) = u32::try_from(self.id).ok().filter(|_| here) else { return false };
        match started(id) {
            Some((started, is_zombie)) => started != self.started || is_zombie,
            // Not there, as long as what is there can be seen at all.
            None => started_own() && !std::path::Path::new(&format!("/proc/{id}")).exists(),
        }
    }

    /// As it is stored.
    pub fn to_document(&self) -> Document {
        doc! { "boot": &self.boot, "namespace": self.namespace, "id": self.id, "started": self.started }
    }

    /// Reads what [`Process::to_document`] wrote; `None` for anything else.
    pub fn from_document(stored: &Document) -> Option<Process> {
        let number = |key: &str| stored.get_i64(key).ok();
        let boot = stored.get_str("boot").ok()?.to_owned();
        Some(Process { boot, namespace: number("namespace")?, id: number("id")?, started: number("started")? })
    }
}

fn boot() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_owned())
}

/// `pid:[4026531836]`: the number.
fn namespace() -> Option<i64> {
    let link = std::fs::read_link("/proc/self/ns/pid").ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

/// When a process started, in ticks since the boot, and whether it is a zombie: fields 22 and 3 of `proc_pid_stat(5)`.
fn started(id: u32) -> Option<(i64, bool)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name is in parentheses and may hold anything, also parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    Some((fields.nth(18)?.parse().ok()?, matches!(state, "Z" | "X")))
}

fn started_own() -> bool {
    started(std::process::id()).is_some()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn only_a_process_that_is_certainly_gone_is_dead() {
        let own = Process::own().expect("Linux tells");
        assert!(!own.is_dead());
        assert_eq!(Process::from_document(&own.to_document()), Some(own.clone()));
        assert_eq!(Process::from_document(&doc! { "id": 1 }), None);
        let before = Process { started: own.started - 1, ..own.clone() };
        assert!(before.is_dead(), "its number was used again");
        for elsewhere in [
            Process { boot: "another".to_owned(), ..before.clone() },
            Process { namespace: own.namespace + 1, ..before.clone() },
            Process { id: -1, ..before },
        ] {
            assert!(!elsewhere.is_dead(), "nothing is known of {elsewhere:?}");
        }
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("start sleep");
        let (started, _) = started(child.id()).expect("it is there");
        let process = Process { id: i64::from(child.id()), started, ..own };
        assert!(!process.is_dead());
        child.kill().expect("kill");
        while !process.is_dead() {
            // Until the kernel has made a zombie of it; the test ends by its own limit if that never happens.
            std::thread::yield_now();
        }
        child.wait().expect("wait");
        assert!(process.is_dead(), "also when nothing is left of it");
    }
}
