//! Checkpoints: restoring them, detecting damage, and crashes while one is written.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use common::{Training, copy, job, model, names};
use millefeuille_coordinator::runs::checkpoint::{Newest, Unreadable};
use millefeuille_coordinator::runs::{Checkpoint, Checkpoints};
use millefeuille_core::job::{Optimizer, OptimizerKind};
use millefeuille_core::learn::optimizers::OptimizerState;
use tempfile::TempDir;

/// A run with checkpoints after 3 and after 6 steps, and what is in them.
fn two_checkpoints() -> (TempDir, PathBuf, [Checkpoint; 2]) {
    let place = TempDir::new().unwrap();
    let path = place.path().join("run");
    let mut training = Training::begin(&path);
    let first = training.steps(3).save().checkpoint();
    let second = training.steps(3).save().checkpoint();
    (place, path, [first, second])
}

fn newest(run: &Path) -> Newest {
    Checkpoints::of(run, 3).newest(&job()).unwrap().expect("there are checkpoints")
}

fn manifest(run: &Path, tag: u64) -> PathBuf {
    run.join(format!("checkpoints/{tag:09}.json"))
}

fn data(run: &Path, tag: u64) -> PathBuf {
    run.join(format!("checkpoints/{tag:09}.safetensors"))
}

#[test]
fn a_checkpoint_is_restored_bit_for_bit() {
    let (_place, path, [first, second]) = two_checkpoints();
    let checkpoints = Checkpoints::of(&path, 3);
    assert_eq!(checkpoints.tags().unwrap(), [6, 3]);
    assert_eq!(checkpoints.read(3, &job()).unwrap().checkpoint, first);
    let newest = newest(&path);
    assert_eq!(newest.read.checkpoint, second);
    assert_eq!(newest.read.path, manifest(&path, 6));
    assert!(newest.damaged.is_empty());
    let bits =
        |checkpoint: &Checkpoint| [checkpoint.partial.loss_sum, checkpoint.partial.seconds].map(f64::to_bits);
    assert_eq!(bits(&newest.read.checkpoint), bits(&second));
    assert_eq!(second.values(), model().initial_parameters(6));
}

#[test]
fn the_state_of_the_optimizer_is_restored() {
    let place = TempDir::new().unwrap();
    let mut adam = job();
    adam.compile.optimizer = Optimizer::new(OptimizerKind::Adam);
    let training = Training::begin(place.path());
    let mut checkpoint = training.checkpoint();
    let gradient = checkpoint.values();
    checkpoint.optimizer = OptimizerState::new(&adam.compile.optimizer, gradient.len());
    let mut next = vec![0.0; gradient.len()];
    checkpoint.optimizer.step(1, 0, &gradient, (&gradient, None), 3, &mut next);
    assert!(checkpoint.optimizer.state().all(|(_, values)| values.iter().any(|value| *value != 0.0)));
    training.run.write_checkpoint(&checkpoint, &model()).unwrap();

    let checkpoints = Checkpoints::of(place.path(), 3);
    assert_eq!(checkpoints.read(0, &adam).unwrap().checkpoint, checkpoint);
    let other = checkpoints.read(0, &job()).unwrap_err();
    assert!(matches!(other, Unreadable::Damaged(_)), "another optimizer's checkpoint is none of this job");
}

#[test]
fn without_a_checkpoint_there_is_none() {
    let place = TempDir::new().unwrap();
    assert_eq!(Checkpoints::of(place.path(), 3).newest(&job()), Ok(None));
}

#[test]
fn only_the_newest_are_kept() {
    let place = TempDir::new().unwrap();
    let mut training = Training::begin(place.path());
    for _ in 0..6 {
        training.steps(1).save();
    }
    let kept = ["000000004", "000000005", "000000006"];
    let files = kept.iter().flat_map(|tag| [format!("{tag}.json"), format!("{tag}.safetensors")]);
    assert_eq!(names(&place.path().join("checkpoints")), files.collect::<Vec<_>>());
}

/// Damages a file of the newest checkpoint in a way, and checks that it is named and the one before it used.
fn is_noticed(run: &Path, file: &Path, damaged: &[u8], what: &str) {
    let whole = fs::read(file).unwrap();
    fs::write(file, damaged).unwrap();
    let newest = newest(run);
    assert_eq!(newest.read.checkpoint.parameter_tag, 3, "{what}");
    assert_eq!(newest.damaged.len(), 1, "{what}");
    assert_eq!(newest.damaged[0].path, file, "{what}: {}", newest.damaged[0]);
    assert_eq!(newest.damaged[0].to_string().lines().count(), 1);
    fs::write(file, whole).unwrap();
}

fn every_damage_is_noticed(file: impl Fn(&Path, u64) -> PathBuf) {
    let (_place, path, _) = two_checkpoints();
    let (file, checkpoints, job) = (file(&path, 6), Checkpoints::of(&path, 3), job());
    let whole = fs::read(&file).unwrap();
    let is_found = |what: String| match checkpoints.read(6, &job) {
        Err(Unreadable::Damaged(found)) => assert_eq!(found.path, file, "{what}: {found}"),
        other => panic!("{what}: {other:?}"),
    };
    // In place: writing a file anew each time would wait for the disk each time.
    let in_place = fs::OpenOptions::new().write(true).open(&file).unwrap();
    for bit in 0..whole.len() * 8 {
        let (byte, place) = (whole[bit / 8], bit as u64 / 8);
        in_place.write_all_at(&[byte ^ (1 << (bit % 8))], place).unwrap();
        is_found(format!("bit {bit} flipped"));
        in_place.write_all_at(&[byte], place).unwrap();
    }
    for len in (0..whole.len()).rev() {
        in_place.set_len(len as u64).unwrap();
        is_found(format!("{len} bytes left"));
    }
    fs::write(&file, &whole).unwrap();
    is_noticed(&path, &file, &whole[..whole.len() / 2], "half of it");
    is_noticed(&path, &file, &[&whole[..], b"\n"].concat(), "a byte more");
    is_noticed(&path, &file, &vec![0; whole.len()], "zeros");
    is_noticed(&path, &file, b"", "empty");
}

#[test]
fn every_truncation_and_every_flipped_bit_of_a_manifest_is_detected() {
    every_damage_is_noticed(manifest);
}

#[test]
fn every_truncation_and_every_flipped_bit_of_a_data_file_is_detected() {
    every_damage_is_noticed(data);
}

#[test]
fn an_unreadable_file_is_not_treated_as_damage() {
    for file in [manifest, data] {
        let (_place, path, [_, second]) = two_checkpoints();
        let (file, aside) = (file(&path, 6), path.join("aside"));
        fs::rename(&file, &aside).unwrap();
        // What even root cannot read: a name that leads to itself, and a directory.
        let in_the_way: [&dyn Fn(); 2] =
            [&|| std::os::unix::fs::symlink(&file, &file).unwrap(), &|| fs::create_dir(&file).unwrap()];
        for (index, put) in in_the_way.into_iter().enumerate() {
            put();
            let checkpoints = Checkpoints::of(&path, 3);
            let error = checkpoints.newest(&job()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}: cannot be read: ", file.display())), "{error}");
            assert!(error.contains("make it readable") && error.lines().count() == 1, "{error}");
            assert!(matches!(checkpoints.read(6, &job()), Err(Unreadable::Refused(_))));
            if index == 0 { fs::remove_file(&file).unwrap() } else { fs::remove_dir(&file).unwrap() }
        }
        fs::rename(&aside, &file).unwrap();
        assert_eq!(newest(&path).read.checkpoint, second);
    }
}

#[test]
fn a_manifest_that_names_a_missing_file_is_named() {
    let (_place, path, [first, _]) = two_checkpoints();
    fs::remove_file(data(&path, 6)).unwrap();
    let newest = newest(&path);
    assert_eq!(newest.read.checkpoint, first);
    let damaged = newest.damaged[0].to_string();
    assert!(damaged.contains("000000006.safetensors: missing, and "), "{damaged}");
    assert!(damaged.contains("000000006.json names it"), "{damaged}");
}

#[test]
fn a_missing_manifest_is_named() {
    let (_place, path, [first, _]) = two_checkpoints();
    fs::remove_file(manifest(&path, 6)).unwrap();
    let newest = newest(&path);
    assert_eq!(newest.read.checkpoint, first);
    let damaged = newest.damaged[0].to_string();
    assert!(damaged.contains("000000006.json: missing, though 000000006.safetensors is there"), "{damaged}");
}

#[test]
fn the_manifest_of_another_checkpoint_is_refused() {
    let (_place, path, _) = two_checkpoints();
    let other = fs::read(manifest(&path, 3)).unwrap();
    is_noticed(&path, &manifest(&path, 6), &other, "a copy of the older one");
}

#[test]
fn if_no_checkpoint_is_complete_all_are_named() {
    let (_place, path, _) = two_checkpoints();
    fs::write(manifest(&path, 3), "{}").unwrap();
    fs::remove_file(data(&path, 6)).unwrap();
    let error = Checkpoints::of(&path, 3).newest(&job()).unwrap_err().to_string();
    for text in [
        "no checkpoint is whole",
        "000000003.json: cut short",
        "000000006.safetensors: missing",
        "--overwrite",
    ] {
        assert!(error.contains(text), "{text}: {error}");
    }
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn a_newer_format_is_refused_and_not_skipped() {
    use sha2::{Digest as _, Sha256};
    let (_place, path, _) = two_checkpoints();
    let text = fs::read_to_string(manifest(&path, 6)).unwrap().replacen("\"format\": 2", "\"format\": 3", 1);
    let body = &text[..text.rfind(",\n  \"sha256\"").unwrap()];
    let seal = hex::encode(Sha256::digest(body));
    fs::write(manifest(&path, 6), format!("{body},\n  \"sha256\": \"{seal}\"\n}}\n")).unwrap();
    let checkpoints = Checkpoints::of(&path, 3);
    let error = checkpoints.newest(&job()).unwrap_err().to_string();
    assert!(error.contains("000000006.json: format 3 is newer than this program knows (2)"), "{error}");
    assert!(matches!(checkpoints.read(6, &job()), Err(Unreadable::Refused(_))));
}

/// Every state that the disk can be in while a third checkpoint is written over two, of which two are kept.
#[test]
fn a_crash_between_any_two_steps_leaves_the_old_or_the_new() {
    let (place, before, [first, second]) = two_checkpoints();
    let after = place.path().join("after");
    copy(&before, &after);
    let third = Checkpoint { parameter_tag: 8, ..second.clone() };
    Checkpoints::of(&after, 3).write(&third, &model(), 0).unwrap();

    let stage = |name: &str, change: &dyn Fn(&Path)| {
        let path = place.path().join(name);
        copy(&before, &path);
        change(&path);
        path
    };
    let put = |to: &Path, file: &dyn Fn(&Path, u64) -> PathBuf, name: &str, len: usize| {
        let content = fs::read(file(&after, 8)).unwrap();
        let len = len.min(content.len());
        fs::write(to.join("checkpoints").join(name), &content[..len]).unwrap();
    };
    let (new_data, new_manifest) = ("000000008.safetensors", "000000008.json");
    let old_stages = [
        stage("half-data", &|to| put(to, &data, ".a.tmp", 100)),
        stage("data-unnamed", &|to| put(to, &data, ".a.tmp", usize::MAX)),
        stage("data", &|to| put(to, &data, new_data, usize::MAX)),
        stage("half-manifest", &|to| {
            put(to, &data, new_data, usize::MAX);
            put(to, &manifest, ".b.tmp", 100);
        }),
        stage("manifest-unnamed", &|to| {
            put(to, &data, new_data, usize::MAX);
            put(to, &manifest, ".b.tmp", usize::MAX);
        }),
    ];
    for path in old_stages {
        assert_eq!(newest(&path).read.checkpoint, second, "{}", path.display());
        let checkpoints = Checkpoints::of(&path, 3);
        checkpoints.remove_newer_than(6).unwrap();
        assert_eq!(names(&path.join("checkpoints")), names(&before.join("checkpoints")));
    }
    let both = |to: &Path| {
        put(to, &data, new_data, usize::MAX);
        put(to, &manifest, new_manifest, usize::MAX);
    };
    let new_stages = [
        stage("manifest", &both),
        stage("pruned-manifest", &|to| {
            both(to);
            fs::remove_file(manifest(to, 3)).unwrap();
        }),
        stage("pruned", &|to| {
            both(to);
            fs::remove_file(manifest(to, 3)).unwrap();
            fs::remove_file(data(to, 3)).unwrap();
        }),
    ];
    for path in new_stages {
        let newest = newest(&path);
        assert_eq!((newest.read.checkpoint, newest.damaged), (third.clone(), vec![]), "{}", path.display());
    }
    assert_ne!(first, second);
}

#[test]
fn a_failed_write_names_the_file_and_keeps_its_old_content() {
    let (_place, path, [_, second]) = two_checkpoints();
    let checkpoints = Checkpoints::of(&path, 1);
    let third = Checkpoint { parameter_tag: 8, ..second.clone() };
    for in_the_way in [data(&path, 8), manifest(&path, 8)] {
        // A directory that is not empty cannot be replaced by a file, whoever asks.
        fs::create_dir_all(in_the_way.join("something")).unwrap();
        let error = checkpoints.write(&third, &model(), 0).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: cannot be written: ", in_the_way.display())), "{error}");
        fs::remove_dir_all(&in_the_way).unwrap();
        assert_eq!(newest(&path).read.checkpoint, second);
        assert!(names(&path.join("checkpoints")).iter().all(|name| !name.ends_with(".tmp")));
    }
    checkpoints.write(&third, &model(), 0).unwrap();
    assert_eq!(checkpoints.tags().unwrap(), [8]);
}
