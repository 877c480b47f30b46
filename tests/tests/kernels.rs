//! Which BLAS kernel computes: the job decides, whatever the environment says.

use millefeuille_tests::home::Home;

fn small() -> Home {
    let home = Home::new();
    home.small_job();
    home
}

fn kernel(home: &Home, run: &str) -> String {
    home.run(run).receipt_text("blas_kernel")
}

/// What OpenBLAS takes on this machine by itself.
fn native(home: &Home) -> String {
    home.coordinator("train small.toml --epochs 1 --workers 1 --run-dir native").succeeds();
    kernel(home, "native")
}

/// A kernel that this machine has, and would not take by itself.
fn other_than(native: &str) -> &'static str {
    if native == "Haswell" { "Sandybridge" } else { "Haswell" }
}

#[test]
fn a_named_kernel_is_used_and_recorded() {
    let home = small();
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
fn the_environment_decides_where_the_job_says_so() {
    let home = small();
    let named = other_than(&native(&home));
    let train = "train small.toml --epochs 1 --blas-kernel environment --workers 2";

    home.coordinator(&format!("{train} --run-dir set")).env("OPENBLAS_CORETYPE", named).succeeds();
    home.coordinator(&format!("{train} --run-dir unset")).succeeds();

    assert_eq!(kernel(&home, "set"), named);
    assert_eq!(kernel(&home, "unset"), kernel(&home, "native"));
}

#[test]
fn kernels_count_in_the_jobs_hash() {
    let home = small();
    let named = other_than(&native(&home));

    let train = format!("train small.toml --epochs 1 --workers 1 --blas-kernel {named} --run-dir named");
    home.coordinator(&train).succeeds();

    assert_ne!(home.run("named").receipt_text("job_sha256"), home.run("native").receipt_text("job_sha256"));
}

#[test]
fn workers_of_a_cluster_start_themselves_again_for_a_jobs_kernel_and_come_back() {
    // Given workers with the machine's own kernel …
    let home = small();
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
    let home = small();

    let alone =
        home.coordinator("train small.toml --workers 1 --blas-kernel Nonesuch --run-dir run").fails(2);
    assert!(alone.contains("Nonesuch") && alone.contains("native"), "{alone}");
    assert!(!home.path("run").exists());

    let cluster = home.cluster("");
    let remote = cluster.coordinator("train small.toml --blas-kernel Nonesuch").fails(2);
    assert!(remote.contains("Nonesuch") && remote.contains("native"), "{remote}");
}

#[test]
fn a_kernel_of_the_past_does_not_hinder_a_saved_model() {
    let home = small();
    let named = other_than(&native(&home));
    home.coordinator(&format!("train small.toml --workers 1 --blas-kernel {named} --run-dir run")).succeeds();

    let evaluated = home.coordinator("evaluate run --json").succeeds().json();

    let last = home.run("run").history().pop().unwrap();
    for key in ["val_loss", "test_loss", "test_accuracy"] {
        assert_eq!(evaluated[0][key], last[key], "{key}");
    }
}
