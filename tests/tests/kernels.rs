//! BLAS kernels: the job decides which one is used, whatever the environment.

use millefeuille_core::blas::choice::{Instructions, candidates};
use millefeuille_tests::cluster::Cluster;
use millefeuille_tests::home::{Call, Home, binary, project};

fn kernel(home: &Home, run: &str) -> String {
    home.run(run).receipt_text("blas_kernel")
}

/// The kernel that `native` selects on this machine.
fn native(home: &Home) -> String {
    home.coordinator("train small.toml --epochs 1 --workers 1 --run-dir native").succeeds();
    kernel(home, "native")
}

/// The kernel that OpenBLAS itself picks on this machine, as a run with the native kernel reports. It is another
/// one if OpenBLAS does not recognise the CPU.
fn of_openblas(home: &Home, run: &str) -> String {
    let receipt = home.run(run).receipt();
    receipt["blas_kernel_of_openblas"].as_str().map_or_else(|| kernel(home, run), str::to_string)
}

/// A kernel that works on this machine, and that `native` does not select.
fn other_than(native: &str) -> &'static str {
    if native == "Haswell" { "Sandybridge" } else { "Haswell" }
}

/// The kernels that `native` may select here if OpenBLAS picks `own`, as far as this library has them; best first.
fn candidates_of(own: &str) -> Vec<&str> {
    let home = Home::new();
    let loaded = |kernel: &&str| {
        let mut probe = home.command(&binary("coordinator"));
        let said = probe.args(["__probe", "name"]).env("OPENBLAS_CORETYPE", kernel).output();
        String::from_utf8_lossy(&said.expect("the coordinator starts").stdout).contains(*kernel)
    };
    candidates(own, Instructions::of_this_machine()).into_iter().filter(loaded).collect()
}

/// A training on a machine whose CPU OpenBLAS does not recognise, with kernels that fail as `failpoints` say.
fn on_a_new_cpu(home: &Home, failpoints: &str, run: &str) -> Call {
    let train = home.coordinator(&format!("train small.toml --epochs 1 --workers 2 --run-dir {run}"));
    train.env("FAILPOINTS", format!("openblas-picks=return(Prescott);{failpoints}"))
}

#[test]
fn a_named_kernel_is_used_and_recorded() {
    let home = Home::small();
    let named = other_than(&native(&home));

    let train = format!("train small.toml --epochs 1 --blas-kernel {named}");
    home.coordinator(&format!("{train} --workers 1 --run-dir one")).succeeds();
    let three = home.coordinator(&format!("{train} --workers 3 --run-dir three"));
    three.env("OPENBLAS_CORETYPE", "Nehalem").succeeds();

    assert_eq!(kernel(&home, "one"), named);
    assert_eq!(home.run("three").receipt(), home.run("one").receipt());
    let job = home.run("one").text("job.toml");
    assert!(job.contains(&format!("blas_kernel = \"{named}\"")), "{job}");
}

#[test]
fn the_environment_decides_if_the_job_says_so() {
    let home = Home::small();
    let named = other_than(&native(&home));
    let train = "train small.toml --epochs 1 --blas-kernel environment --workers 2";

    home.coordinator(&format!("{train} --run-dir set")).env("OPENBLAS_CORETYPE", named).succeeds();
    home.coordinator(&format!("{train} --run-dir unset")).succeeds();

    assert_eq!(kernel(&home, "set"), named);
    assert_eq!(kernel(&home, "unset"), of_openblas(&home, "native"));
}

#[test]
fn the_kernel_is_part_of_the_jobs_hash() {
    let home = Home::small();
    let named = other_than(&native(&home));

    let train = format!("train small.toml --epochs 1 --workers 1 --blas-kernel {named} --run-dir named");
    home.coordinator(&train).succeeds();

    assert_ne!(home.run("named").receipt_text("job_sha256"), home.run("native").receipt_text("job_sha256"));
}

#[test]
fn workers_restart_with_the_kernel_of_a_job_and_rejoin() {
    // Given workers with the machine's own kernel …
    let home = Home::small();
    let cluster = home.cluster("--min-workers 2");
    let client = cluster.client();
    let workers = [0; 2].map(|_| cluster.joined_by("--slots 1"));
    let native = client.workers()[0].kernel.clone();
    let named = other_than(&native);

    // … when a job needs another one, and the next the native one again …
    let train = "train small.toml --epochs 1";
    cluster.coordinator(&format!("{train} --name named --blas-kernel {named}")).succeeds();
    let after = client.workers();
    cluster.coordinator(&format!("{train} --name native")).succeeds();

    // … then each job had its own, and the workers are still the same processes.
    assert_eq!(kernel(&home, "runs/named-1"), named);
    assert_eq!(after.iter().map(|worker| worker.kernel.as_str()).collect::<Vec<_>>(), [named, named]);
    assert_eq!(kernel(&home, "runs/native-1"), native);
    for mut worker in workers {
        let restarts = worker.stderr().matches("starting again with the BLAS kernel").count();
        assert!(worker.is_running() && restarts == 2, "{}", worker.stderr());
        let pid = worker.pid();
        let name = |worker: &millefeuille_proto::v1::WorkerInfo| worker.name.ends_with(&format!(":{pid}"));
        assert!(client.workers().iter().any(name), "process {pid} is a worker");
    }
}

#[test]
fn an_unknown_kernel_is_named_in_one_line() {
    let home = Home::small();

    let alone =
        home.coordinator("train small.toml --workers 1 --blas-kernel Nonesuch --run-dir run").fails(2);
    assert!(alone.contains("Nonesuch") && alone.contains("native"), "{alone}");
    assert!(!home.path("run").exists());

    let cluster = home.cluster("");
    let remote = cluster.coordinator("train small.toml --blas-kernel Nonesuch").fails(2);
    assert!(remote.contains("Nonesuch") && remote.contains("native"), "{remote}");
}

#[test]
fn an_unavailable_kernel_in_the_environment_is_an_error_for_jobs_that_use_the_environment() {
    let home = Home::small();
    let train = |kernel: &str| {
        let train =
            format!("train small.toml --epochs 1 --workers 1 --blas-kernel {kernel} --run-dir {kernel}");
        home.coordinator(&train).env("OPENBLAS_CORETYPE", "Nonesuch")
    };

    let error = train("environment").fails(2);
    assert!(error.contains("\"Nonesuch\"") && !home.path("environment").exists(), "{error}");

    train("native").succeeds();
}

#[test]
fn a_saved_model_does_not_need_the_kernel_that_trained_it() {
    let home = Home::small();
    let named = other_than(&native(&home));
    home.coordinator(&format!("train small.toml --workers 1 --blas-kernel {named} --run-dir run")).succeeds();

    let evaluated = home.coordinator("evaluate run --json").succeeds().json();

    let last = home.run("run").history().pop().unwrap();
    for key in ["val_loss", "test_loss", "test_accuracy"] {
        assert_eq!(evaluated[0][key], last[key], "{key}");
    }
}

#[test]
fn native_is_the_best_kernel_even_if_openblas_does_not_recognise_the_cpu() {
    let home = Home::small();
    let best = candidates_of("Prescott")[0];

    let stderr = on_a_new_cpu(&home, "", "native").succeeds().stderr;
    on_a_new_cpu(&home, "", "variables").env("OPENBLAS_CORETYPE", "Nehalem").succeeds();
    on_a_new_cpu(&home, "", "named").arg("--blas-kernel").arg(best).succeeds();

    let said: Vec<_> = stderr.lines().filter(|line| line.contains("Prescott")).collect();
    assert!(said.len() == 1 && said[0].contains(best), "{stderr}");
    assert_eq!(kernel(&home, "native"), best);
    assert_eq!(home.run("native").receipt_text("blas_kernel_of_openblas"), "Prescott");
    assert_eq!(home.run("variables").receipt(), home.run("native").receipt());
    assert_eq!(home.run("named").receipt(), home.run("native").receipt());
}

#[test]
fn workers_and_coordinator_pick_the_same_native_kernel() {
    let home = Home::small();
    let picks = "openblas-picks=return(Prescott)";
    let cluster = Cluster::start(&home, home.serve("127.0.0.1:0", "").env("FAILPOINTS", picks));
    let mut worker = cluster.worker("--slots 1").env("FAILPOINTS", picks).start();
    worker.says("joined");

    cluster.coordinator("train small.toml --epochs 1").succeeds();

    let best = candidates_of("Prescott")[0];
    assert_eq!(kernel(&home, "runs/small-1"), best);
    assert!(
        worker.stderr().contains(&format!("computing with the BLAS kernel {best}")),
        "{}",
        worker.stderr()
    );
    assert!(!worker.stderr().contains("starting again"), "{}", worker.stderr());
}

#[test]
fn native_skips_kernels_that_are_wrong_or_crash_or_hang() {
    let home = Home::small();
    let [first, second, third, ..] = candidates_of("Prescott")[..] else {
        panic!("a machine whose CPU has AVX2, for several kernels to choose from")
    };
    for (run, failpoints, taken) in [
        ("wrong", format!("kernel-wrong=return({first})"), second),
        ("killing", format!("kernel-kills=return({first} {second})"), third),
        ("hanging", format!("kernel-hangs=return({first})"), second),
        ("both", format!("kernel-wrong=return({first});kernel-kills=return({second})"), third),
    ] {
        let stderr = on_a_new_cpu(&home, &failpoints, run).succeeds().stderr;
        assert_eq!(kernel(&home, run), taken, "{failpoints}");
        let warning = format!("warning: the BLAS kernel {first} ");
        let warnings: Vec<_> = stderr.lines().filter(|line| line.starts_with(&warning)).collect();
        assert!(warnings.len() == 1 && warnings[0].ends_with(&format!("{taken} is taken")), "{stderr}");
    }
}

#[test]
fn a_pinned_kernel_that_is_wrong_or_crashes_or_hangs_is_refused() {
    let home = Home::small();
    let pinned = other_than(&native(&home));
    for (failpoint, what) in [
        ("kernel-wrong", "computes wrong numbers: in ["),
        ("kernel-kills", "kills the process that computes with it (SIGILL"),
        ("kernel-hangs", "does not come back within 1 s"),
    ] {
        let train = format!("train small.toml --workers 1 --blas-kernel {pinned} --run-dir run");
        let error =
            home.coordinator(&train).env("FAILPOINTS", format!("{failpoint}=return({pinned})")).fails(8);

        let named = format!("the kernel {pinned} of OpenBLAS ");
        assert!([&named, what, "\"native\""].iter().all(|part| error.contains(part)), "{error}");
        assert!(!home.path("run").exists());
    }
}

#[test]
fn if_no_kernel_is_usable_all_are_named() {
    let home = Home::small();
    native(&home);
    // The test gives the kernel that OpenBLAS picks another name.
    let own = of_openblas(&home, "native");
    let mut all = candidates_of("Prescott");
    all.retain(|kernel| *kernel != "Prescott");
    all.push(&own);

    let error = on_a_new_cpu(&home, &format!("kernel-wrong=return({})", all.join(" ")), "run").fails(8);

    assert!(all.iter().all(|kernel| error.contains(&format!("{kernel} computes wrong numbers"))), "{error}");
}

#[test]
fn a_kernel_that_is_wrong_for_the_jobs_own_shapes_ends_that_job() {
    let home = Home::small();
    let named = other_than(&native(&home));
    let wrong = format!("kernel-wrong=return({named})");
    // The coordinator itself computes with another kernel, and tries this one when the job comes.
    let cluster = Cluster::start(&home, home.serve("127.0.0.1:0", "").env("FAILPOINTS", &wrong));

    let error = cluster.coordinator(&format!("train small.toml --blas-kernel {named}")).fails(8);

    assert!(error.contains(&format!("the kernel {named} of OpenBLAS")), "{error}");
    assert!(error.contains("computes wrong numbers"), "{error}");
}

#[test]
fn a_worker_whose_kernel_is_wrong_or_crashes_reports_it_and_exits() {
    let home = Home::small();
    let named = other_than(&native(&home));
    let cluster = home.cluster("");
    let following = cluster.coordinator(&format!("train small.toml --blas-kernel {named}")).start();
    for (failpoint, what) in [("kernel-wrong", "computes wrong numbers"), ("kernel-kills", "SIGILL")] {
        let worker = cluster.worker("--slots 1").env("FAILPOINTS", format!("{failpoint}=return({named})"));

        // It joins with its own kernel, is restarted with the job's, and detects that this one is wrong.
        let ended = worker.start().wait().with_code(8);

        assert!(ended.stderr.contains(what) && ended.stderr.contains(named), "{}", ended.stderr);
    }
    drop(following);
}

#[test]
fn a_saved_model_uses_another_kernel_if_its_own_is_wrong() {
    let home = Home::small();
    let named = other_than(&native(&home));
    home.coordinator(&format!("train small.toml --workers 1 --blas-kernel {named} --run-dir run")).succeeds();
    let wrong = format!("kernel-wrong=return({named})");

    let evaluated = home.coordinator("evaluate run").env("FAILPOINTS", &wrong).succeeds();
    let images = project().join("data/mnist/t10k-images-idx3-ubyte.gz");
    let predicted = home.coordinator("predict run --json").arg(images).env("FAILPOINTS", &wrong).succeeds();
    let verified = home.coordinator("verify run").env("FAILPOINTS", &wrong).fails(8);

    assert!(evaluated.stderr.contains("last digits may differ"), "{}", evaluated.stderr);
    assert_eq!(evaluated.stderr.matches("warning").count(), 1, "{}", evaluated.stderr);
    assert_eq!(predicted.json().len(), 10_000);
    assert!(verified.contains("cannot be verified here") && verified.contains(named), "{verified}");
}
