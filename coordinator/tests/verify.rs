//! Verification: an unchanged run is verified, and any change is detected.
//!
//! The run is trained here without a cluster: pieces one after another, in the order of their shards. The tests of whole processes
//! verify the runs of clusters.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use common::{copy, reseal};
use millefeuille_coordinator::cluster::load;
use millefeuille_coordinator::replay::{Replay, ReplayState};
use millefeuille_coordinator::runs::checkpoint::{Checkpoint, Partial};
use millefeuille_coordinator::runs::history::History;
use millefeuille_coordinator::runs::ledger::{self, Ledger};
use millefeuille_coordinator::runs::receipt::{FORMAT, Participation, Receipt, weights_sha256};
use millefeuille_coordinator::runs::{Existing, RunDir, SavedRun, history, model, names};
use millefeuille_coordinator::verify::{Evidence, Finding};
use millefeuille_core::arithmetic::{self, Arithmetic};
use millefeuille_core::blas;
use millefeuille_core::control::{Phase, Position};
use millefeuille_core::data::inputs::Inputs;
use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::shard::{Shard, ShardStore};
use millefeuille_core::job::{Activation, BlasKernel, Data, Fit, Job, Layer, Source, Stopping};
use millefeuille_core::learn::optimizers::OptimizerState;
use millefeuille_core::learn::piece::{Learner, PieceOutcome, Scratch, ShardView};
use millefeuille_core::learn::tree::{Node, Reduction, Tree};
use millefeuille_core::learn::work::Workload;
use millefeuille_core::view::EpochRow;
use tempfile::TempDir;

const EPOCHS: u32 = 3;
const SIDE: usize = 4;

/// A data set with little in it, but something of every split in every shard.
fn write_data(directory: &Path, train: usize, test: usize) {
    fs::create_dir_all(directory).unwrap();
    for (name, count, salt) in [("train", train, 1), ("t10k", test, 2)] {
        let pixels: Vec<u8> =
            (0..count * SIDE * SIDE).map(|i| (i * 37 + salt * 11 + i / 16 * 5) as u8).collect();
        let labels: Vec<u8> = (0..count).map(|i| ((i * 7 + salt) % 10) as u8).collect();
        let be = |n: usize| (n as u32).to_be_bytes();
        let images = [&[0, 0, 8, 3], &be(count)[..], &be(SIDE), &be(SIDE), &pixels].concat();
        fs::write(directory.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
        let labels = [&[0, 0, 8, 1], &be(count)[..], &labels].concat();
        fs::write(directory.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
    }
}

fn job(data: &Path) -> Job {
    let layers = vec![
        Layer::dense(12, Activation::Sigmoid),
        Layer::Dropout { rate: 0.25 },
        Layer::dense(10, Activation::Softmax),
    ];
    Job {
        name: "tiny".into(),
        shards: 5,
        blas_kernel: BlasKernel::Named(blas::kernel()),
        data: Data {
            source: Source::Path(data.to_path_buf()),
            scale: 1.0 / 255.0,
            validation_split: 0.2,
            ..Data::default()
        },
        layers,
        fit: Fit {
            batch_size: 30,
            epochs: EPOCHS,
            shuffle: true,
            accumulate: 1,
            stopping: Stopping::default(),
        },
        ..Job::default()
    }
}

/// A job with its data at hand.
struct Loaded {
    job: Job,
    store: ShardStore,
    workload: Workload,
}

impl Loaded {
    fn new(job: Job) -> Self {
        let dataset = millefeuille_coordinator::data::read(&job).unwrap();
        let store = ShardStore::new(dataset, job.shards);
        let workload = Workload::new(load::spec(&job, &store));
        Self { job, store, workload }
    }

    fn beginning(&self) -> ReplayState {
        let parameters = self.workload.model().initial_parameters(self.job.seed);
        ReplayState::beginning(&self.job, &self.workload, parameters)
    }

    fn job_sha256(&self) -> String {
        self.job.sha256(&self.store.file_hashes(), &blas::kernel())
    }

    fn samples(&self, phase: Phase, index: u32) -> ShardView<'_> {
        let samples = &self.store.get(Shard { split: phase.split(), index }).unwrap().samples;
        ShardView { shard: index, shards: self.workload.spec().shards, samples }
    }
}

/// A training by hand, with all that is written on the way.
struct Trainer<'a> {
    loaded: &'a Loaded,
    run: RunDir,
    ledger: Ledger,
    history: Vec<EpochRow>,
    parameters: Vec<f32>,
    optimizer: OptimizerState,
    tag: u64,
    /// Adds so much to a parameter at a step, as a faulty worker might.
    fault: Option<(u64, f32)>,
    arithmetic: Arithmetic,
    shapes_fingerprint: String,
}

impl<'a> Trainer<'a> {
    fn begin(loaded: &'a Loaded, path: &Path) -> Self {
        let mut run = RunDir::claim(path, Existing::Refuse).unwrap();
        run.begin(&loaded.job).unwrap();
        let parameters = loaded.workload.model().initial_parameters(loaded.job.seed);
        let optimizer = OptimizerState::new(&loaded.job.compile.optimizer, parameters.len());
        Self {
            loaded,
            run,
            ledger: Ledger::default(),
            history: vec![],
            parameters,
            optimizer,
            tag: 0,
            fault: None,
            arithmetic: Arithmetic::of_this_process(),
            shapes_fingerprint: arithmetic::model_fingerprint(loaded.workload.spec()),
        }
    }

    /// One tree: the sum of gradients, and of all else.
    fn sum(&mut self, epoch: u32, phase: Phase, step: u32) -> (Vec<f32>, PieceOutcome) {
        let (spec, model) = (self.loaded.workload.spec(), self.loaded.workload.model());
        let plan = Plan::new(spec.sizes.train, spec.batch_size, spec.shards);
        let present = match phase {
            Phase::Train => plan.present(step),
            _ => (0..spec.shards.min(spec.sizes.of(phase.split()))).collect(),
        };
        let mut reduction = Reduction::new(Tree::new(spec.shards), &present);
        let add = |left: &mut (Vec<f32>, PieceOutcome), right: (Vec<f32>, PieceOutcome)| {
            left.0.iter_mut().zip(right.0).for_each(|(left, right)| *left += right);
            left.1.figures += right.1.figures;
        };
        for shard in present {
            let learner = Learner { model, spec, parameters: &self.parameters };
            let (samples, mut scratch) = (self.loaded.samples(phase, shard), Scratch::default());
            let (gradient, outcome) = if phase == Phase::Train {
                let mut gradient = vec![0.0; model.parameter_count()];
                let order = plan.order(spec.seed, epoch, shard, spec.shuffle);
                let piece = plan.piece(step, shard);
                let order = &order[piece.start as usize..piece.end as usize];
                let outcome = learner.train_piece(&samples, order, epoch.into(), &mut gradient, &mut scratch);
                (gradient, outcome)
            } else {
                (vec![], learner.evaluate_piece(&samples, &mut scratch))
            };
            self.ledger.piece(epoch, phase, shard, outcome.figures.samples, &outcome.samples_sha256);
            reduction.insert(Node::leaf(shard), (gradient, outcome), add);
        }
        reduction.take_root(add).unwrap()
    }

    fn epoch(&mut self, checkpoint_after: Option<u32>) {
        let spec = self.loaded.workload.spec();
        let plan = Plan::new(spec.sizes.train, spec.batch_size, spec.shards);
        let epoch = self.history.len() as u32;
        let (mut loss, mut correct) = (0.0, 0);
        for step in 0..plan.steps() {
            let (gradient, outcome) = self.sum(epoch, Phase::Train, step);
            loss += outcome.figures.loss_sum;
            correct += outcome.figures.correct;
            let mut next = vec![0.0; gradient.len()];
            self.optimizer.step(
                self.tag + 1,
                0,
                &self.parameters,
                (&gradient, None),
                outcome.figures.samples,
                &mut next,
            );
            self.parameters = next;
            if let Some((_, error)) = self.fault.filter(|&(tag, _)| tag == self.tag) {
                self.parameters[3] += error;
            }
            self.tag += 1;
            if checkpoint_after == Some(step + 1) {
                let samples = plan.positions(step).end.into();
                self.save(
                    epoch,
                    step + 1,
                    Partial { loss_sum: loss, correct, samples, seconds: 0.5, ..Partial::default() },
                );
            }
        }
        let (_, validation) = self.sum(epoch, Phase::Validate, 0);
        let (_, test) = self.sum(epoch, Phase::Test, 0);
        let mean = |outcome: &PieceOutcome| outcome.figures.loss_sum / outcome.figures.samples as f64;
        let share = |outcome: &PieceOutcome| outcome.figures.correct as f64 / outcome.figures.samples as f64;
        let train = f64::from(spec.sizes.train);
        let row = EpochRow {
            epoch: u64::from(epoch) + 1,
            loss: loss / train,
            accuracy: Some(correct as f64 / train),
            val_loss: Some(mean(&validation)),
            val_accuracy: Some(share(&validation)),
            test_loss: Some(mean(&test)),
            test_accuracy: Some(share(&test)),
            seconds: 1.5,
            weights_sha256: weights_sha256(bytemuck::cast_slice(&self.parameters)),
            ..EpochRow::default()
        };
        let lines = self.ledger.end_epoch(epoch, None);
        self.run.append_ledger(&lines).unwrap();
        self.run.append_history(&row).unwrap();
        self.history.push(row);
        self.save(epoch + 1, 0, Partial::default());
    }

    fn save(&self, epoch: u32, step: u32, partial: Partial) {
        let checkpoint = Checkpoint {
            job_sha256: self.loaded.job_sha256(),
            arithmetic: self.arithmetic.clone(),
            shapes_fingerprint: self.shapes_fingerprint.clone(),
            position: Position { epoch, phase: Phase::Train, step },
            parameter_tag: self.tag,
            parameters: Bytes::copy_from_slice(bytemuck::cast_slice(&self.parameters)),
            optimizer: self.optimizer.clone(),
            partial,
            history: self.history.iter().cloned().collect::<History>().state(),
            ledger: self.ledger.state(),
            participation: Participation::default(),
            suspects: Participation::default(),
        };
        self.run.write_checkpoint(&checkpoint, self.loaded.workload.model()).unwrap();
    }

    fn finish(mut self) {
        let encoded =
            model::encode(&self.parameters, self.loaded.workload.model(), &Inputs::default()).unwrap();
        self.run.write(names::MODEL, &encoded).unwrap();
        let arithmetic = self.arithmetic;
        let receipt = Receipt {
            format: FORMAT,
            job_sha256: self.loaded.job_sha256(),
            data_sha256: self
                .loaded
                .store
                .files()
                .iter()
                .map(|file| (file.name.clone(), file.sha256.clone()))
                .collect(),
            blas_kernel: arithmetic.kernel,
            blas_kernel_of_openblas: None,
            blas_version: arithmetic.version,
            fingerprint: arithmetic.fingerprint,
            version: "0".into(),
            epoch_weights_sha256: self.history.iter().map(|row| row.weights_sha256.clone()).collect(),
            weights_sha256: weights_sha256(bytemuck::cast_slice(&self.parameters)),
            stopped: None,
            restored_epoch: None,
            grown_from: Vec::new(),
            suspects: vec![],
        };
        self.run.finish(&receipt).unwrap();
    }
}

/// A run that is done, with its data beside it.
fn done(fault: Option<(u64, f32)>) -> (TempDir, PathBuf) {
    let place = TempDir::new().unwrap();
    let data = place.path().join("data");
    write_data(&data, 201, 33);
    let (loaded, path) = (Loaded::new(job(&data)), place.path().join("run"));
    let mut trainer = Trainer::begin(&loaded, &path);
    trainer.fault = fault;
    trainer.epoch(None);
    trainer.epoch(Some(2));
    trainer.epoch(None);
    trainer.finish();
    (place, path)
}

/// Everything that `coordinator verify` does, or with `quick` the part without training.
fn verify(run: &Path, quick: bool) -> Result<Vec<String>, Finding> {
    verify_with(&Loaded::new(SavedRun::open(run)?.job()?), run, quick)
}

/// The same, with the data at hand.
fn verify_with(loaded: &Loaded, run: &Path, quick: bool) -> Result<Vec<String>, Finding> {
    let evidence = Evidence::read(&SavedRun::open(run)?)?;
    let mut said = evidence.agrees_with_itself()?;
    said.push(evidence.agrees_with_data(&loaded.store)?);
    said.push(evidence.ledger_agrees(loaded.workload.spec())?);
    if !quick {
        said.push(evidence.can_be_computed_here(loaded.workload.spec())?);
        let mut replay = Replay::new(&loaded.store, &loaded.workload, 3);
        let mut state = loaded.beginning();
        while state.epoch < evidence.epochs() {
            said.push(history::to_line(&evidence.epoch_agrees(&mut replay, &mut state)?));
        }
    }
    Ok(said)
}

fn differs(run: &Path, quick: bool) -> String {
    match verify(run, quick) {
        Err(Finding::Differs(what)) => what,
        other => panic!("{other:?}"),
    }
}

/// Changes a file's text.
fn edit(run: &Path, name: &str, change: impl Fn(String) -> String) {
    let path = run.join(name);
    fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
}

#[test]
fn an_unchanged_run_is_verified() {
    let (_place, path) = done(None);
    let said = verify(&path, false).unwrap();
    let parts = [
        "run.json: 6 files",
        "history.jsonl: 3 epochs",
        "model.safetensors: weights_sha256 ",
        "checkpoints: 3",
        "job_sha256 ",
        "ledger: in 3 epochs each sample",
    ];
    for (line, part) in said.iter().zip(parts) {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(said.len(), 6 + 1 + 3);
}

#[test]
fn an_epoch_is_computed_from_a_checkpoint_too() {
    let (_place, path) = done(None);
    let evidence = Evidence::read(&SavedRun::open(&path).unwrap()).unwrap();
    let loaded = Loaded::new(evidence.job.clone());
    let steps = u64::from(loaded.workload.spec().sizes.train.div_ceil(loaded.workload.spec().batch_size));
    let tag = |epoch| evidence.before(epoch).map(|read| read.checkpoint.parameter_tag);
    // The first epoch's is the one that was too many.
    assert_eq!([tag(0), tag(1), tag(2), tag(3)], [None, None, Some(2 * steps), Some(3 * steps)]);
    let mut replay = Replay::new(&loaded.store, &loaded.workload, 2);
    for (read, epochs) in evidence.checkpoints.iter().zip([0, 1, 2]) {
        let mut state = evidence.state_at(read, &loaded.workload);
        for _ in 0..epochs {
            evidence.epoch_agrees(&mut replay, &mut state).unwrap();
        }
        assert_eq!(state.epoch, EPOCHS);
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let (_place, path) = done(None);
    let loaded = Loaded::new(SavedRun::open(&path).unwrap().job().unwrap());
    let rows = |threads| {
        let mut replay = Replay::new(&loaded.store, &loaded.workload, threads);
        let row = replay.finish_epoch(&mut loaded.beginning());
        EpochRow { seconds: 0.0, ..row }
    };
    assert_eq!(rows(1), rows(4));
    assert_eq!(rows(1), rows(64));
}

#[test]
fn every_file_that_was_changed_is_named() {
    let (place, path) = done(None);
    // What is said once `run.json` agrees with the change, as a forger would have it.
    let changed = |name: &str, change: &dyn Fn(&Path)| {
        let copied = place.path().join(name);
        copy(&path, &copied);
        change(&copied);
        let careless = differs(&copied, true);
        assert!(careless.contains(": not the file that the run wrote: its SHA-256 is "), "{careless}");
        reseal(&copied);
        differs(&copied, true)
    };
    let model = changed("model", &|run| {
        let file = run.join(names::MODEL);
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(file, bytes).unwrap();
    });
    assert!(model.contains("model.safetensors: weights_sha256 is "), "{model}");
    let torn = changed("torn", &|run| fs::write(run.join(names::MODEL), "{}").unwrap());
    assert!(torn.contains("model.safetensors: not a safetensors file"), "{torn}");
    let history = changed("history", &|run| {
        edit(run, names::HISTORY, |text| {
            text.replacen("\"loss\":1", "\"loss\":2", 1).replacen("\"loss\":2", "\"loss\":3", 1)
        })
    });
    assert!(history.contains("history.jsonl: its first 3 epochs are not those of "), "{history}");
    let lost =
        changed("lost", &|run| edit(run, names::HISTORY, |text| text[..text.rfind("{").unwrap()].into()));
    assert!(lost.contains("history.jsonl: 2 epochs, the job has 3"), "{lost}");
    let receipt = changed("receipt", &|run| {
        edit(run, names::RECEIPT, |text| text.replacen("\"job_sha256\": \"", "\"job_sha256\": \"0", 1))
    });
    assert!(receipt.contains("of job_sha256 ") && receipt.contains("the receipt's is 0"), "{receipt}");
    let hash = changed("hash", &|run| {
        edit(run, names::RECEIPT, |text| {
            text.replacen("epoch_weights_sha256\": [\n    \"", "epoch_weights_sha256\": [\n    \"0", 1)
        })
    });
    assert!(hash.contains("history.jsonl: epoch 1: weights_sha256 is "), "{hash}");
    let of_job =
        changed("job", &|run| edit(run, names::JOB, |text| text.replacen("seed = 42", "seed = 43", 1)));
    assert!(of_job.contains("job.toml: with the data, job_sha256 is "), "{of_job}");
    let ledger = changed("ledger", &|run| {
        edit(run, names::LEDGER, |text| {
            let lines = text.split_inclusive('\n').enumerate();
            lines.filter(|(index, _)| *index != 7).map(|(_, line)| line).collect()
        })
    });
    assert!(ledger.contains("ledger: line 8: it does not follow from the lines before it"), "{ledger}");
    let shorter = changed("shorter", &|run| {
        edit(run, names::LEDGER, |text| text[..text.trim_end().rfind('\n').unwrap() + 1].into())
    });
    assert!(shorter.contains("is missing: epoch 3, test, shard 4"), "{shorter}");
    let arithmetic = changed("arithmetic", &|run| {
        edit(run, names::RECEIPT, |text| text.replacen(&blas::version(), "0.1.99", 1));
    });
    assert!(arithmetic.contains("receipt.json: kernel ") && arithmetic.contains("0.1.99"), "{arithmetic}");
    let sealed = |name: &str, change: &dyn Fn(&Path)| {
        let copied = place.path().join(name);
        copy(&path, &copied);
        change(&copied);
        differs(&copied, true)
    };
    let checkpoint = sealed("checkpoint", &|run| {
        let name = common::names(&run.join("checkpoints")).remove(0);
        edit(&run.join("checkpoints"), &name, |text| text.replacen("epoch", "epoca", 1));
    });
    assert!(checkpoint.contains(".json: damaged"), "{checkpoint}");
    let record = sealed("record", &|run| edit(run, "run.json", |text| text.replacen("ended", "enbed", 1)));
    assert!(record.contains("run.json: damaged"), "{record}");
}

#[test]
fn every_changed_byte_of_every_file_is_found() {
    let (_place, path) = done(None);
    let loaded = Loaded::new(SavedRun::open(&path).unwrap().job().unwrap());
    // The tests of checkpoints do the same to theirs.
    fs::remove_dir_all(path.join("checkpoints")).unwrap();
    verify_with(&loaded, &path, true).unwrap();
    let files = common::names(&path);
    let all = [
        "events.jsonl",
        "history.jsonl",
        "job.toml",
        "ledger",
        "model.safetensors",
        "receipt.json",
        "run.json",
    ];
    assert_eq!(files, all);
    for file in files.iter().map(|name| path.join(name)) {
        let whole = fs::read(&file).unwrap();
        let in_place = fs::OpenOptions::new().write(true).open(&file).unwrap();
        for (place, byte) in (0..).zip(&whole) {
            in_place.write_all_at(&[byte ^ (1 << (place % 8))], place).unwrap();
            let found = verify_with(&loaded, &path, true);
            assert!(found.is_err(), "byte {place} of {}", file.display());
            in_place.write_all_at(&[*byte], place).unwrap();
        }
    }
}

#[test]
fn a_missing_record_and_a_newer_ledger_are_no_differences() {
    let (place, path) = done(None);
    let unreadable = |name: &str, change: &dyn Fn(&Path)| {
        let copied = place.path().join(name);
        copy(&path, &copied);
        change(&copied);
        match verify(&copied, true) {
            Err(Finding::Unreadable(failure)) => failure.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let newer = unreadable("newer", &|run| {
        edit(run, names::LEDGER, |text| text.replacen("ledger 1", "ledger 2", 1));
    });
    assert!(newer.contains("newer/ledger: format 2 is newer than this program knows (1)"), "{newer}");
    let lost = unreadable("lost", &|run| fs::remove_file(run.join(names::RECORD)).unwrap());
    assert!(lost.ends_with("lost/run.json: missing"), "{lost}");
}

#[test]
fn a_run_of_an_earlier_version_is_verified_without_the_hashes_of_its_files() {
    let (_place, path) = done(None);
    edit(&path, names::RECORD, |text| {
        let (begin, rest) = text.split_once("  \"files_sha256\": {").unwrap();
        format!("{begin}{}", rest.split_once("},\n").unwrap().1)
    });
    reseal(&path);
    let said = verify(&path, true).unwrap();
    assert!(said[0].contains("run.json: of an earlier version"), "{said:?}");
}

#[test]
fn other_data_is_named() {
    let (place, path) = done(None);
    let file = place.path().join("data/t10k-images-idx3-ubyte");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(file, bytes).unwrap();
    let what = differs(&path, true);
    assert!(what.contains("run: data file t10k-images-idx3-ubyte: SHA-256 is "), "{what}");
}

#[test]
fn a_consistent_ledger_of_other_samples_is_detected() {
    let (_place, path) = done(None);
    let entries = ledger::read(&fs::read_to_string(path.join(names::LEDGER)).unwrap()).unwrap();
    let (mut forged, mut text) = (Ledger::default(), ledger::header());
    for epoch in 0..EPOCHS {
        for (place, chain) in entries.chains.iter().filter(|(place, _)| place.epoch == epoch) {
            forged.piece(epoch, place.phase, place.shard, chain.samples, &chain.hash);
        }
        text += &forged.end_epoch(epoch, None);
    }
    fs::write(path.join(names::LEDGER), text).unwrap();
    reseal(&path);
    let what = differs(&path, true);
    assert!(
        what.ends_with(
            "ledger: line 2: epoch 1, train, shard 0: other samples than the plan's, or in another order"
        ),
        "{what}"
    );
}

#[test]
fn a_consistently_changed_run_is_detected_by_recomputation() {
    // A step of the second epoch went wrong by a little, and everything after it is consistent.
    let (_place, path) = done(Some((7, 1e-6)));
    verify(&path, true).expect("the files agree with each other");
    let what = differs(&path, false);
    assert!(what.contains("history.jsonl: epoch 2: weights_sha256 is "), "{what}");
}

#[test]
fn a_consistently_changed_figure_is_detected_by_recomputation() {
    let (_place, path) = done(None);
    fs::remove_dir_all(path.join("checkpoints")).unwrap();
    edit(&path, names::HISTORY, |text| {
        let rows = text.lines().map(|line| history::from_line(line).unwrap());
        let better =
            rows.map(|row| EpochRow { val_accuracy: row.val_accuracy.map(|share| share + 0.1), ..row });
        better.map(|row| history::to_line(&row) + "\n").collect()
    });
    reseal(&path);
    verify(&path, true).expect("nothing else has the figures");
    let what = differs(&path, false);
    assert!(what.contains("history.jsonl: epoch 1: val_accuracy is "), "{what}");
}

#[test]
fn another_arithmetic_cannot_be_verified_here_and_both_are_named() {
    let (_place, path) = done(None);
    edit(&path, names::RECEIPT, |text| text.replacen(&blas::version(), "0.1.99", 1));
    fs::remove_dir_all(path.join("checkpoints")).unwrap();
    reseal(&path);
    match verify(&path, false) {
        Err(Finding::CannotVerify(what)) => {
            assert!(what.contains("OpenBLAS 0.1.99") && what.contains(&blas::version()), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unfinished_run_of_another_arithmetic_cannot_be_verified_here() {
    let place = TempDir::new().unwrap();
    let data = place.path().join("data");
    write_data(&data, 201, 33);
    let loaded = Loaded::new(job(&data));
    let cannot_verify = |name: &str, change: &dyn Fn(&mut Trainer<'_>)| {
        let path = place.path().join(name);
        let mut trainer = Trainer::begin(&loaded, &path);
        change(&mut trainer);
        trainer.epoch(None);
        drop(trainer);
        match verify(&path, false) {
            Err(Finding::CannotVerify(what)) => what,
            other => panic!("{other:?}"),
        }
    };
    let version = cannot_verify("version", &|trainer| trainer.arithmetic.version = "0.1.99".into());
    assert!(version.contains("OpenBLAS 0.1.99") && version.contains(&blas::version()), "{version}");
    let shapes = cannot_verify("shapes", &|trainer| trainer.shapes_fingerprint = "f".repeat(64));
    assert!(shapes.contains("fingerprint ffffffffffff over the job's shapes"), "{shapes}");
}

#[test]
fn missing_files_are_named() {
    let (place, path) = done(None);
    for name in [names::LEDGER, names::MODEL] {
        let copied = place.path().join(name);
        copy(&path, &copied);
        fs::remove_file(copied.join(name)).unwrap();
        match verify(&copied, true) {
            Err(Finding::Unreadable(failure)) => {
                let said = failure.to_string();
                assert!(said.ends_with(&format!("{name}: missing")), "{said}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_unfinished_run_is_verified_as_far_as_it_got() {
    let (_place, path) = done(None);
    // As if it had died in the third epoch.
    for name in [names::RECEIPT, names::MODEL] {
        fs::remove_file(path.join(name)).unwrap();
    }
    let newest = common::names(&path.join("checkpoints")).into_iter().rev().take(2);
    newest.for_each(|name| fs::remove_file(path.join("checkpoints").join(name)).unwrap());
    let history = fs::read(path.join(names::HISTORY)).unwrap();
    edit(&path, names::HISTORY, |text| text[..text.len() - 30].into());
    // Whole lines of the third epoch are there, but not all of them.
    edit(&path, names::LEDGER, |text| text[..text.len() - 30].into());
    let evidence = Evidence::read(&SavedRun::open(&path).unwrap()).unwrap();
    assert_eq!((evidence.epochs(), evidence.is_done()), (2, false));
    let said = verify(&path, false).unwrap();
    assert!(said.iter().any(|line| line.contains("ledger: in 2 epochs")), "{said:?}");
    // The other way round: the line of history made it onto the disk, some of the ledger's did not.
    fs::write(path.join(names::HISTORY), &history).unwrap();
    let said = verify(&path, false).unwrap();
    assert!(said.iter().any(|line| line.contains("ledger: in 2 epochs")), "{said:?}");
    edit(&path, names::HISTORY, |text| text.replacen("\"epoch\":2", "\"epoch\":3", 1));
    assert!(differs(&path, true).contains("history.jsonl: line 2 is of epoch 3"));
}
