//! A replay that did not deliver all that was chosen says so, and how many letters stay: its output was paused in the middle, or was
//! not at work in the first place.

use std::process::{Command, Stdio};

use crate::dead_letters::{DEADLINE, STORES, Scene, letter_ids, until_letters};
use crate::harness::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_cut_short_or_does_not_reach_all_is_no_success() {
    const LETTERS: usize = 20;
    for store in STORES {
        let scene = Scene::new(store, "").await;
        scene.answer(&[("bad", 422)]);
        let daemon = scene.daemon().await;
        scene.insert(0..LETTERS as i64, |_| "bad").await;
        until_letters(&daemon, LETTERS).await;

        daemon.told(&["output", "pause", "hooks"]);
        let named = daemon.refused(&["dead-letters", "replay", "hooks"]);
        assert!(named.contains("output hooks: it is paused, run: tailwater output resume hooks"), "{named}");
        let one = letter_ids(&daemon, "hooks")[0].clone();
        for (which, letters) in [("--all", LETTERS), (one.as_str(), 1)] {
            let refused = daemon.refused(&["dead-letters", "replay", which]);
            let why = format!("{letters} dead letters stay: their outputs are not at work in this daemon");
            assert!(refused.contains(&why), "{refused}");
        }
        daemon.told(&["output", "resume", "hooks"]);
        eventually("it delivers again", DEADLINE, || daemon.status_of("hooks")["state"] == "live").await;

        // Tried again and again, until the output is paused.
        scene.answer(&[("bad", 500)]);
        let from = scene.receiver.look(|record| record.arrivals.len());
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater"));
        command.args(["dead-letters", "replay", "--all", "--admin", &daemon.url()]).stdin(Stdio::null());
        let replay = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run tailwater");
        scene.receiver.wait_until("it is tried", |record| record.arrivals.len() > from);
        daemon.told(&["output", "pause", "hooks"]);
        let output = replay.wait_with_output().expect("wait for tailwater");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        let why = format!("the replay ended with {LETTERS} left (output hooks was ended or has stopped");
        assert!(error.contains(&why), "{error}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "replayed 0 of 20 (0 rejected again)\n");
        assert_eq!(letter_ids(&daemon, "hooks").len(), LETTERS);

        scene.answer(&[]);
        daemon.told(&["output", "resume", "hooks"]);
        eventually("it delivers again", DEADLINE, || daemon.status_of("hooks")["state"] == "live").await;
        assert_eq!(daemon.told(&["dead-letters", "replay", "--all"]), "replayed 20 of 20 (0 rejected again)\n");
        assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    }
}
