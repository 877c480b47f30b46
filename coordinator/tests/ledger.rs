//! The ledger agrees with the plan, and every change of its file is detected.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use millefeuille_coordinator::runs::Broken;
use millefeuille_coordinator::runs::ledger::{self, Chain, Ledger, Place};
use millefeuille_core::control::Phase;
use millefeuille_core::data::plan::{self, Plan};
use millefeuille_core::data::schema::{Features, Schema, Target};
use millefeuille_core::data::split::Sizes;
use millefeuille_core::job::Job;
use millefeuille_core::learn::spec::Spec;

const EPOCHS: u32 = 2;

type Chains = Vec<(Place, Chain)>;

fn spec() -> Spec {
    let sizes = Sizes { train: 53, validation: 7, test: 2 };
    let schema = Schema::new(Features::image(28, 28), Target::Class { classes: 10 });
    let spec = Job { shards: 3, ..Job::default() }.spec(schema, sizes);
    Spec { batch_size: 10, ..spec }
}

/// Trains by the plan, entering each piece. Gives the ledger after every step, and the file.
fn trained(spec: &Spec) -> (Vec<(Ledger, usize)>, String) {
    let plan = Plan::new(spec.sizes.train, spec.batch_size, spec.shards);
    let (mut ledger, mut file, mut states) = (Ledger::default(), ledger::header(), Vec::new());
    for epoch in 0..EPOCHS {
        for step in 0..plan.steps() {
            for shard in plan.present(step) {
                let order = plan.order(spec.seed, epoch, shard, spec.shuffle);
                let indices: Vec<u64> = plan.indices(&order, step, shard).collect();
                let digest = plan::digest(indices.iter().copied());
                ledger.piece(epoch, Phase::Train, shard, indices.len() as u64, &digest);
            }
            states.push((ledger.clone(), file.len()));
        }
        for (phase, count) in [(Phase::Validate, spec.sizes.validation), (Phase::Test, spec.sizes.test)] {
            for shard in 0..spec.shards.min(count) {
                let indices: Vec<u64> = (shard..count).step_by(spec.shards as usize).map(u64::from).collect();
                let digest = plan::digest(indices.iter().copied());
                ledger.piece(epoch, phase, shard, indices.len() as u64, &digest);
            }
        }
        file += &ledger.end_epoch(epoch, None);
        states.push((ledger.clone(), file.len()));
    }
    (states, file)
}

#[test]
fn a_run_by_the_plan_has_the_ledger_that_the_plan_expects() {
    for shuffle in [true, false] {
        let spec = Spec { shuffle, ..spec() };
        let (_, file) = trained(&spec);
        let found = ledger::read(&file).unwrap().chains;
        let expected = ledger::expected(&spec, EPOCHS);
        assert_eq!(found, expected);
        assert_eq!(ledger::first_difference(&found, &expected), None);
        // Two epochs of three train, three validation and two test shards.
        assert_eq!(found.len(), 2 * (3 + 3 + 2));
        let of_train = found.iter().filter(|(place, _)| place.epoch == 1 && place.phase == Phase::Train);
        assert_eq!(of_train.map(|(_, chain)| chain.samples).sum::<u64>(), 53);
    }
}

#[test]
fn a_ledger_continues_from_any_checkpoint() {
    let (states, file) = trained(&spec());
    for (ledger, len) in states {
        // The file may be longer by now, or cut already.
        for there in [&file.as_bytes()[..len], file.as_bytes()] {
            let restored = Ledger::restore(&ledger.state(), there).unwrap();
            assert_eq!(restored.state(), ledger.state());
            let end = |mut ledger: Ledger| ledger.end_epoch(EPOCHS - 1, None);
            assert_eq!(end(restored), end(ledger.clone()));
        }
        if let Some(short) = len.checked_sub(1) {
            let error = Ledger::restore(&ledger.state(), &file.as_bytes()[..short]).unwrap_err();
            assert!(error.contains(&format!("{short} bytes, but {len} belong")), "{error}");
        }
        let mut changed = file.clone().into_bytes();
        changed[len / 2] ^= 1;
        let error = Ledger::restore(&ledger.state(), &changed).unwrap_err();
        assert!(error.contains("its beginning is not"), "{error}");
    }
}

fn without(file: &str, line: usize) -> String {
    let kept = file.split_inclusive('\n').enumerate().filter(|(index, _)| index + 1 != line);
    kept.map(|(_, text)| text).collect()
}

#[test]
fn a_missing_duplicated_or_changed_line_is_named() {
    let (_, file) = trained(&spec());
    let lines: Vec<&str> = file.split_inclusive('\n').collect();
    for (number, line) in (1..).zip(&lines) {
        if number < lines.len() {
            let error = ledger::read(&without(&file, number)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {number}: ")), "{number}: {error}");
        }
        let doubled = [&lines[..number], &[line], &lines[number..]].concat().concat();
        let error = ledger::read(&doubled).unwrap_err().to_string();
        let twice = number == 1 || error.ends_with("it is there twice");
        assert!(error.starts_with(&format!("line {}: ", number + 1)) && twice, "{number}: {error}");
    }
    for bit in 0..file.len() * 8 {
        let mut changed = file.clone().into_bytes();
        changed[bit / 8] ^= 1 << (bit % 8);
        let number = 1 + file[..bit / 8].matches('\n').count();
        if let Ok(changed) = String::from_utf8(changed) {
            let error = ledger::read(&changed).unwrap_err().to_string();
            let newer = number == 1 && error.starts_with("format ");
            assert!(newer || error.starts_with(&format!("line {number}: ")), "bit {bit}: {error}");
        }
    }
    for len in 0..file.len() {
        match ledger::read(&file[..len]) {
            Err(error) => assert!(error.to_string().contains("line "), "{len} bytes: {error}"),
            // Only the plan knows how many lines there have to be.
            Ok(entries) => {
                let difference =
                    ledger::first_difference(&entries.chains, &ledger::expected(&spec(), EPOCHS));
                assert!(difference.unwrap().contains(" is missing: epoch "), "{len} bytes");
            }
        }
    }
}

#[test]
fn the_first_place_that_differs_from_the_plan_is_named() {
    let expected = ledger::expected(&spec(), EPOCHS);
    let differing = |change: &dyn Fn(&mut Chains)| {
        let mut found = expected.clone();
        change(&mut found);
        ledger::first_difference(&found, &expected).unwrap()
    };
    let lost = differing(&|found| _ = found.remove(1));
    assert_eq!(lost, "line 3: epoch 1, train, shard 2, where epoch 1, train, shard 1 belongs");
    let fewer = differing(&|found| found[2].1.samples -= 1);
    assert_eq!(fewer, "line 4: epoch 1, train, shard 2: 16 samples, the plan has 17");
    let others = differing(&|found| found[8].1.hash[0] ^= 1);
    assert_eq!(
        others,
        "line 10: epoch 2, train, shard 0: other samples than the plan's, or in another order"
    );
    let more = differing(&|found| found.push(found[0]));
    assert_eq!(more, "line 18: epoch 1, train, shard 0, which the plan does not have");
}

#[test]
fn a_newer_ledger_is_refused_by_its_version() {
    let error = ledger::read("millefeuille ledger 2\n").unwrap_err();
    assert_eq!(error, Broken::Newer { found: 2, known: 1 });
    assert!(error.to_string().starts_with("format 2 is newer than this program knows (1)"), "{error}");
}
