//! A browser with one page: headless Chromium of the test's own, gone with all of its processes when the test ends.

use std::env;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::page::{Page, Seen};

/// How long the page's script may take to run, on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);
/// How long the processes may take to be gone once they are killed.
const END_MAX: Duration = Duration::from_secs(10);

/// What Chromium is called.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Nothing but the page: no window, no first steps, no calls home.
const FLAGS: [&str; 12] = [
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-breakpad",
    "--no-first-run",
    "--no-default-browser-check",
];

/// Chromium with the test's page open in it.
pub struct Browser {
    process: Child,
    page: Page,
    // Dropped after `drop` has ended the processes that write into it.
    folder: TempDir,
}

impl Browser {
    /// Starts one and waits until its page can be told what to do.
    pub async fn start() -> Browser {
        let page = Page::serve();
        let folder = tempfile::tempdir().expect("temporary folder");
        let process = spawn(&binary(), folder.path(), &format!("{}/", page.origin()));
        let mut browser = Browser { process, page, folder };
        let started = Instant::now();
        while !browser.page.is_here() {
            let ended = browser.process.try_wait().expect("wait for the browser");
            assert!(ended.is_none(), "the browser ended before it showed the page");
            assert!(started.elapsed() < START_MAX, "the browser does not show the page after {START_MAX:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        browser
    }

    /// The origin of its page.
    pub fn origin(&self) -> String {
        self.page.origin()
    }

    /// Makes an `EventSource`, from now on called `stream`.
    pub fn open(&self, stream: &str, url: &str) {
        self.page.task(json!({ "do": "open", "stream": stream, "url": url, "withCredentials": false }));
    }

    /// The same with the cookies of its origin.
    pub fn open_with_credentials(&self, stream: &str, url: &str) {
        self.page.task(json!({ "do": "open", "stream": stream, "url": url, "withCredentials": true }));
    }

    /// Closes it.
    pub fn close(&self, stream: &str) {
        self.page.task(json!({ "do": "close", "stream": stream }));
    }

    /// Reads a stream with `fetch()` instead, with this `Last-Event-ID`: for that the browser asks the server first.
    pub fn read_behind(&self, stream: &str, url: &str, id: &str) {
        self.page.task(json!({ "do": "read", "stream": stream, "url": url, "headers": { "Last-Event-ID": id } }));
    }

    /// What the page has seen of a stream, in order.
    pub fn seen(&self, stream: &str) -> Vec<Seen> {
        self.page.seen(stream)
    }

    /// The events among it, repeats included. Panics where one does not have its own id as the browser's last event id.
    pub fn events(&self, stream: &str) -> Vec<Value> {
        let event = |seen| if let Seen::Message { id, data } = seen { Some(event(&id, &data)) } else { None };
        self.seen(stream).into_iter().filter_map(event).collect()
    }

    /// What was sent in place of a history that is gone: the browser's last event id behind it, and its data.
    pub fn resets(&self, stream: &str) -> Vec<(String, Value)> {
        let reset = |seen| if let Seen::Reset { id, data } = seen { Some((id, json(&data))) } else { None };
        self.seen(stream).into_iter().filter_map(reset).collect()
    }

    /// The `readyState` of a stream whenever it ended.
    pub fn ends(&self, stream: &str) -> Vec<u16> {
        let end = |seen: &Seen| if let Seen::Error { state } = seen { Some(*state) } else { None };
        self.seen(stream).iter().filter_map(end).collect()
    }

    /// How often a stream was opened.
    pub fn times_opened(&self, stream: &str) -> usize {
        self.seen(stream).iter().filter(|seen| matches!(seen, Seen::Open { .. })).count()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            // It complains at length about every desktop service that is not there.
            let log: Vec<&str> = log.lines().filter(|line| !line.contains("dbus/")).collect();
            eprintln!("--- the browser said\n{}\n--- its page saw\n{}\n---", log.join("\n"), self.page.report());
        }
        // Its group: Chromium is many processes.
        let group = libc::pid_t::try_from(self.process.id()).expect("a process id");
        // SAFETY: kill takes no pointer. The group is named after its leader, the child, which was not waited for to its end
        // except where it ended before the page was there; its number is then still the group's while others are in it.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        let _ = self.process.wait();
        // The others are not our children. Where they are still writing, the folder could not be removed.
        let started = Instant::now();
        // SAFETY: as above; signal 0 only asks.
        while unsafe { libc::kill(-group, 0) } == 0 && started.elapsed() < END_MAX {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn event(id: &str, data: &str) -> Value {
    let event = json(data);
    assert_eq!(event["id"], id, "the browser's last event id is the event's");
    event
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:.1000}"))
}

/// The browser that `cargo xtask test` has found, or one on PATH.
fn binary() -> PathBuf {
    if let Some(given) = env::var_os("TAILWATER_CHROMIUM") {
        return given.into();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let mut files = env::split_paths(&path).flat_map(|folder| NAMES.map(|name| folder.join(name)));
    files.find(|file| file.is_file()).expect(
        "this test needs Chromium: install it (Debian: apt-get install chromium), or set TAILWATER_CHROMIUM to its path",
    )
}

fn spawn(binary: &Path, folder: &Path, url: &str) -> Child {
    let log = File::create(folder.join("log")).expect("create the browser's log");
    let mut command = Command::new(binary);
    command.args(FLAGS).arg(format!("--user-data-dir={}", folder.join("profile").display()));
    // SAFETY: geteuid only returns a number.
    if unsafe { libc::geteuid() } == 0 {
        // Chromium refuses to make its sandbox as root; it shows nothing but the test's page.
        command.arg("--no-sandbox");
    }
    // What it leaves behind goes with the folder, also its reports of crashes, which it does not put into the profile.
    command
        .env("TMPDIR", folder)
        .env("XDG_CONFIG_HOME", folder)
        .env("XDG_CACHE_HOME", folder)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0);
    command.spawn().unwrap_or_else(|error| panic!("start {}: {error}", binary.display()))
}
