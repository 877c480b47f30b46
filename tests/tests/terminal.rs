//! What a person sees on a terminal, of 80 columns and of fewer.

#![allow(clippy::unwrap_used, reason = "clippy exempts test functions but not their helpers")]

use std::path::Path;

use millefeuille_proto::v1;
use millefeuille_tests::home::{Call, Home};
use millefeuille_tests::raw_cluster::{RawCluster, done, epochs_ended};

fn train(home: &Home, epochs: u32) -> Call {
    home.coordinator(&format!("train small.toml --workers 2 --epochs {epochs} --run-dir run"))
}

/// The lines from the first epoch to the history's table: the progress.
fn progress(screen: &[String]) -> String {
    let lines = screen.iter().skip_while(|line| !line.starts_with("Epoch "));
    let lines = lines.take_while(|line| !line.starts_with("epoch "));
    lines.map(|line| figureless(line) + "\n").collect()
}

/// A line without what differs from run to run and from machine to machine: the time after the bar, and the digits of figures.
fn figureless(line: &str) -> String {
    let Some((bar, rest)) = line.split_once("━ ") else {
        let is_title = line.starts_with("Epoch");
        return if is_title { line.to_string() } else { without_digits(line) };
    };
    let figures = rest.find(" - ").map_or("", |at| &rest[at..]);
    format!("{bar}━ TIME{}", without_digits(figures))
}

fn without_digits(text: &str) -> String {
    text.replace(|c: char| c.is_ascii_digit(), "0")
}

/// Compares with a file in `tests/golden`, whose place is named if it differs.
fn is_golden(name: &str, seen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(seen, golden, "{}", path.display());
}

#[test]
fn each_epoch_is_drawn_once_and_in_order() {
    let home = Home::small();
    let screen = train(&home, 5).is_seen(80, 0);
    is_golden("train-80.txt", &progress(&screen));
}

#[test]
fn sixty_columns_are_enough() {
    let home = Home::small();
    let screen = train(&home, 5).is_seen(60, 0);
    is_golden("train-60.txt", &progress(&screen));
    let table: Vec<&str> =
        screen.iter().map(String::as_str).filter(|line| line.starts_with("epoch ")).collect();
    let headers =
        ["epoch    loss  accuracy  val_loss  val_accuracy  test_loss", "epoch  test_accuracy  seconds"];
    assert_eq!(table, headers, "the table is in two blocks: {screen:#?}");
}

#[test]
fn the_history_fits_into_eighty_columns() {
    let home = Home::small();
    train(&home, 2).succeeds();
    let screen = home.coordinator("show run run").is_seen(80, 0);
    assert_eq!(screen[0], "epoch   loss accuracy val_loss val_accuracy test_loss test_accuracy seconds");
    assert!(screen[1].starts_with("    1 ") && screen[2].starts_with("    2 "), "{screen:#?}");
    assert_eq!(screen[3], "");
    // Elsewhere it is a table for programs, as wide as it is.
    let piped = home.coordinator("show run run").succeeds().stdout;
    assert!(piped.starts_with("epoch    loss  accuracy  val_loss"), "{piped}");
}

#[test]
fn a_wide_table_of_workers_does_not_wrap() {
    let home = Home::small();
    let cluster = home.cluster("");
    let _worker = cluster.joined_by("--slots 1");
    for columns in [60, 80] {
        let screen = cluster.coordinator("workers").is_seen(columns, 0);
        let headers: Vec<&String> = screen.iter().filter(|line| line.starts_with("id")).collect();
        assert!(headers.len() > 1, "{screen:#?}");
        assert!(
            screen.iter().all(|line| line.is_empty() || line.starts_with("id") || line.starts_with(" 1")),
            "{screen:#?}"
        );
    }
}

fn at(epoch: u32, step: u32) -> v1::WatchJobResponse {
    let progress = v1::Progress { epoch, step, loss: 1.0, epoch_seconds: 1.0, ..v1::Progress::default() };
    v1::WatchJobResponse { progress: Some(progress), ..epochs_ended([]) }
}

fn with_epochs(done: u32, message: v1::WatchJobResponse) -> v1::WatchJobResponse {
    let job = message.job.map(|job| v1::Job { epochs_done: Some(done), ..job });
    v1::WatchJobResponse { job, ..message }
}

#[test]
fn a_job_that_is_set_back_is_followed_to_its_true_end() {
    let (home, cluster) = (Home::new(), RawCluster::new());
    cluster.submission(Ok("raw-1"));
    // Attached before the data is read: the history has three epochs, and the checkpoint has one.
    cluster.stream(vec![
        with_epochs(3, epochs_ended([1, 2, 3])),
        with_epochs(1, at(2, 4)),
        with_epochs(2, epochs_ended([2])),
        with_epochs(2, at(3, 1)),
    ]);
    // It is set back once more, and everything is sent again.
    cluster.stream(vec![with_epochs(1, epochs_ended([1])), with_epochs(3, done([2, 3]))]);

    let screen = home.coordinator(&format!("train --cluster {}", cluster.address)).is_seen(80, 0);

    let titles: Vec<&String> = screen.iter().filter(|line| line.starts_with("Epoch ")).collect();
    assert_eq!(titles, ["Epoch 1/3", "Epoch 2/3", "Epoch 3/3"], "{screen:#?}");
    let table = screen.iter().skip_while(|line| !line.starts_with("epoch ")).skip(1);
    let epochs: Vec<&str> =
        table.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(epochs, ["1", "2", "3"], "{screen:#?}");
}

#[test]
fn what_a_job_has_lost_for_good_is_not_in_its_table() {
    let (home, cluster) = (Home::new(), RawCluster::new());
    cluster.submission(Ok("raw-1"));
    let cancelled = v1::Outcome { exit_code: 130, message: "cancelled".into(), ..v1::Outcome::default() };
    let mut last = with_epochs(1, epochs_ended([]));
    last.outcome = Some(cancelled);
    last.job.as_mut().unwrap().run_dir = "runs/raw-1".into();
    cluster.stream(vec![with_epochs(3, epochs_ended([1, 2, 3])), last]);

    let error = home.coordinator(&format!("train --cluster {}", cluster.address)).fails(130);

    assert!(
        error.contains("epochs finished and kept in runs/raw-1: 1 (on the coordinator's machine"),
        "{error}"
    );
}
