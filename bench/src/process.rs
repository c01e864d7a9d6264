//! CPU time and memory of a process, from the operating system.

use std::fs;
use std::mem::MaybeUninit;

use anyhow::{Context, Result, anyhow, ensure};

/// CPU time that a process has used so far, user and system, all its threads.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    nanoseconds: i128,
}

impl Cpu {
    /// Of a living process. In nanoseconds, where `/proc/PID/stat` has ticks of 10 ms, which a run of 20,000 events would show.
    pub fn of(pid: u32) -> Result<Cpu> {
        let mut clock = 0;
        // SAFETY: the pointer is valid for one clockid_t; the call reads nothing else.
        let error = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
        ensure!(error == 0, "read the CPU time of process {pid}: {}", std::io::Error::from_raw_os_error(error));
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the pointer is valid for one timespec, which the call fills where it returns 0.
        let time = unsafe {
            let failed = libc::clock_gettime(clock, time.as_mut_ptr()) != 0;
            ensure!(!failed, "read the CPU time of process {pid}: {}", std::io::Error::last_os_error());
            time.assume_init()
        };
        Ok(Cpu { nanoseconds: i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec) })
    }

    /// Since the process began.
    pub fn seconds(self) -> f64 {
        self.nanoseconds as f64 / 1e9
    }

    /// What the same process has used since then.
    pub fn seconds_since(self, pid: u32) -> Result<f64> {
        Ok(Cpu::of(pid)?.seconds() - self.seconds())
    }
}

/// The most memory that was ever resident, in megabytes.
pub fn peak_resident_mb(pid: u32) -> Result<f64> {
    status_mb(pid, "VmHWM:")
}

/// The memory that is resident now, in megabytes.
pub fn resident_mb(pid: u32) -> Result<f64> {
    status_mb(pid, "VmRSS:")
}

/// Of it, what is not backed by a file: heap and stacks, in megabytes.
pub fn anonymous_mb(pid: u32) -> Result<f64> {
    status_mb(pid, "RssAnon:")
}

fn status_mb(pid: u32, field: &str) -> Result<f64> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let line =
        text.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("{file} has no {field}"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().with_context(|| format!("{field} of {file}"))?;
    Ok(kib * 1024.0 / 1e6)
}

/// Asks a process to end.
pub fn terminate(pid: u32) -> Result<()> {
    // SAFETY: no memory is involved; the process is a child that was not waited for, so that its number is still its own.
    let failed = unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) } != 0;
    if failed { Err(anyhow!("end process {pid}: {}", std::io::Error::last_os_error())) } else { Ok(()) }
}
