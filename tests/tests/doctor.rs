//! `doctor`: its report of this machine, and its errors on machines without a usable kernel.

use millefeuille_tests::home::{Call, Home};
use serde_json::Value;

fn findings(call: Call) -> Value {
    call.succeeds().json().remove(0)
}

#[test]
fn both_programs_print_the_same_report() {
    let home = Home::new();
    let mut pages = [home.coordinator("doctor --json"), home.worker("doctor --json")].map(findings);
    for page in &mut pages {
        let speed = page["openblas"]["gflops"].take();
        assert!(speed["one"].as_f64() > Some(0.0) && speed["all"].as_f64() > Some(0.0), "{speed}");
        // Free memory and load change.
        page["limits"]["memory_available"].take();
        page["warnings"].take();
    }
    assert_eq!(pages[0], pages[1]);

    let text = home.coordinator("doctor").succeeds().stdout;
    let lines = ["CPU", "cores", "OpenBLAS", "native", "self-check", "speed", "limits", "subnormals"];
    assert!(lines.iter().all(|name| text.lines().any(|line| line.starts_with(name))), "{text}");
}

#[test]
fn native_is_the_kernel_that_jobs_use() {
    let home = Home::new();
    home.small_job();
    home.coordinator("train small.toml --epochs 1 --workers 1 --run-dir run").succeeds();

    let openblas = findings(home.coordinator("doctor --json"))["openblas"].take();

    assert_eq!(openblas["native"], home.run("run").receipt()["blas_kernel"]);
    assert_eq!(openblas["picks"], home.run("run").receipt()["blas_kernel_of_openblas"]);
    assert_eq!(openblas["version"], home.run("run").receipt()["blas_version"]);
}

#[test]
fn ignored_variables_are_named_and_invalid_ones_are_warned_about() {
    let home = Home::new();

    let ended = home
        .coordinator("doctor")
        .env("OPENBLAS_CORETYPE", "Nonesuch")
        .env("OMP_NUM_THREADS", "3")
        .succeeds();

    assert!(ended.stdout.contains("OMP_NUM_THREADS=3, OPENBLAS_CORETYPE=Nonesuch\n"), "{ended}");
    let warning = "warning: OPENBLAS_CORETYPE=Nonesuch: OpenBLAS has no such kernel here";
    assert!(ended.stdout.lines().any(|line| line.starts_with(warning)), "{ended}");
    assert!(ended.stderr.is_empty(), "{ended}");
}

#[test]
fn unusable_kernels_are_reported_and_without_a_usable_one_doctor_fails() {
    let home = Home::new();
    let openblas = findings(home.coordinator("doctor --json"))["openblas"].take();
    let native = openblas["native"].as_str().unwrap().to_string();

    let wrong = home.worker("doctor --json").env("FAILPOINTS", format!("kernel-wrong=return({native})"));
    let findings = findings(wrong);

    assert_ne!(findings["openblas"]["native"], native);
    let not_taken = findings["openblas"]["not_taken"][0].as_str().unwrap();
    assert!(not_taken.starts_with(&format!("{native} computes wrong numbers")), "{not_taken}");

    let all = "Cooperlake SapphireRapids SkylakeX Haswell Zen Sandybridge Prescott Nehalem Excavator";
    let none = home.coordinator("doctor").env("FAILPOINTS", format!("kernel-kills=return({native} {all})"));
    let none = none.run().with_code(8);
    assert!(none.stdout.contains("native        no kernel can be used"), "{none}");
    assert!(none.stderr.contains("SIGILL") && none.stderr.lines().count() == 1, "{none}");
}

#[test]
fn too_little_address_space_for_openblas_is_one_line() {
    let home = Home::new();
    home.small_job();
    // With less, an unoptimised program itself can't be loaded.
    for limits in ["ulimit -v 150000", "ulimit -v 200000", "ulimit -v 380000"] {
        for (program, arguments) in [
            ("coordinator", "doctor"),
            ("worker", "doctor --json"),
            ("coordinator", "train small.toml --workers 1 --slots 2 --run-dir run"),
            ("coordinator", "serve --listen 127.0.0.1:0"),
            ("worker", "--coordinator 127.0.0.1:1 --slots 2"),
        ] {
            let error = home.limited(limits, program, arguments).fails(1);
            assert!(
                error.contains("address space") && error.contains("ulimit -v unlimited"),
                "{limits}: {error}"
            );
        }
    }
    assert!(!home.path("run").exists());
}

#[test]
fn a_job_is_trained_within_a_limit_of_address_space() {
    let home = Home::new();
    home.small_job();
    let train = "train small.toml --workers 1 --slots 2 --run-dir";
    home.coordinator(&format!("{train} free")).succeeds();

    home.limited("ulimit -v 600000", "coordinator", &format!("{train} limited")).succeeds();

    assert_eq!(home.run("limited").receipt(), home.run("free").receipt());
}

#[test]
fn a_limit_of_address_space_that_leaves_less_than_all_cores_is_told_with_what_fits() {
    let home = Home::new();
    home.small_job();
    let cores = findings(home.coordinator("doctor --json"))["usable_cores"].as_u64().unwrap();
    let limits = "ulimit -v 400000";

    let page = findings(home.limited(limits, "worker", "doctor --json"));
    let warning = page["warnings"].as_array().unwrap().iter().find(|warning| {
        let what = warning["what"].as_str().unwrap();
        let all = 262_144 + cores * 131_072;
        what == format!(
            "the limit of address space is 400000 kB (ulimit -v), in which a process computes with 1 of {cores} threads; \
             all need {all} kB"
        )
    });
    assert_eq!(warning.is_some(), cores > 1, "{page}");
    // Whoever does not name slots gets as many as fit.
    home.limited(limits, "coordinator", "train small.toml --workers 1 --run-dir run").succeeds();
}
