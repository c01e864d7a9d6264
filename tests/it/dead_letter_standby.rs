//! Dead letters in a folder that two instances share: the one that stands by leaves it alone, and has it once it delivers, whether
//! the other drained, was killed, or lost the lease and lives on.

use std::collections::BTreeSet;
use std::path::Path;

use tempfile::TempDir;

use crate::dead_letters::{DEADLINE, Scene, letter_ids, until_letters};
use crate::harness::{Daemon, eventually};

/// A scene whose letters are in a folder beside those of the instances, and so are its checkpoints where `files` says so.
async fn scene(shared: &Path, files: bool) -> Scene {
    let checkpoints = if files { format!("store = \"file\"\npath = {shared:?}\n") } else { String::new() };
    let tables = format!(
        "[checkpoint]\ninterval = \"100ms\"\n{checkpoints}[dead_letters]\nstore = \"file\"\npath = {shared:?}\n"
    );
    let scene = Scene::new(&tables, "").await;
    scene.answer(&[("bad", 422)]);
    scene
}

async fn instance(scene: &Scene) -> (TempDir, Daemon) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let daemon = Daemon::start(folder.path(), &scene.text).await;
    (folder, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_the_folder_over_from_one_that_drained_and_from_one_that_was_killed() {
    for (files, killed) in [(true, false), (true, true), (false, false), (false, true)] {
        let shared = tempfile::tempdir().expect("temporary folder");
        let scene = scene(shared.path(), files).await;
        let (_first_folder, first) = instance(&scene).await;
        scene.insert(0..20, |_| "bad").await;
        until_letters(&first, 20).await;
        let before: BTreeSet<String> = letter_ids(&first, "hooks").into_iter().collect();
        let (second_folder, second) = instance(&scene).await;
        assert_eq!(second.status_of("hooks")["state"], "standby");
        let refused = second.refused(&["dead-letters", "list"]);
        assert!(refused.contains("in use by another tailwater"), "{refused}");
        let refused = second.refused(&["dead-letters", "replay", "hooks"]);
        assert!(refused.contains("another instance delivers this output"), "{refused}");

        match killed {
            true => first.kill9(),
            false => assert!(first.terminate_and_wait(DEADLINE).await.success()),
        }
        scene.insert(20..40, |_| "bad").await;
        until_letters(&second, 40).await;
        let all: BTreeSet<String> = letter_ids(&second, "hooks").into_iter().collect();
        assert!(all.len() == 40 && all.is_superset(&before), "those of the first and its own");
        scene.answer(&[]);
        assert_eq!(second.told(&["dead-letters", "replay", "hooks"]), "replayed 40 of 40 (0 rejected again)\n");
        assert!(second.terminate_and_wait(DEADLINE).await.success());
        drop(second_folder);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_lost_the_lease_and_lives_on_gives_the_folder_up() {
    let shared = tempfile::tempdir().expect("temporary folder");
    let scene = scene(shared.path(), false).await;
    let (_first_folder, first) = instance(&scene).await;
    scene.insert(0..20, |_| "bad").await;
    until_letters(&first, 20).await;
    let (_second_folder, second) = instance(&scene).await;
    first.pause();
    eventually("the second has the lease", DEADLINE, || {
        second.has_logged(&["this instance delivers to the exclusive outputs now"])
    })
    .await;
    // It cannot begin: the lock is held by a process that does nothing.
    eventually("it waits for the folder", DEADLINE, || {
        second.has_logged(&["the output cannot begin", "in use by another"])
    })
    .await;
    first.resume();
    eventually("the first stands by", DEADLINE, || first.status_of("hooks")["state"] == "standby").await;
    scene.insert(20..40, |_| "bad").await;
    until_letters(&second, 40).await;
    let refused = first.refused(&["dead-letters", "list"]);
    assert!(refused.contains("in use by another tailwater"), "{refused}");

    // And back, by a drain.
    assert!(second.terminate_and_wait(DEADLINE).await.success());
    scene.insert(40..60, |_| "bad").await;
    until_letters(&first, 60).await;
    assert!(first.terminate_and_wait(DEADLINE).await.success());
}
