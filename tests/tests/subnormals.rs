//! Subnormal numbers are flushed to zero on every thread of every process, with every instruction set.

use std::path::PathBuf;
use std::process::Command;

use millefeuille_tests::home::Home;

/// The article's images saturate its sigmoids at once: gradients have many subnormal numbers.
const JOB: &str = "train --epochs 1 --workers 2";

fn hash(home: &Home, run: &str, variable: (&str, &str)) -> String {
    home.coordinator(&format!("{JOB} --run-dir {run}")).env(variable.0, variable.1).succeeds();
    home.run(run).hash()
}

/// A preloaded library that sets the CPU's mode before `main`, and so for every thread.
fn library_that_flushes(home: &Home) -> PathBuf {
    let (source, library) = (home.path("flush.c"), home.path("flush.so"));
    let text = "#if defined(__x86_64__)\n\
                #include <immintrin.h>\n\
                __attribute__((constructor)) static void on(void) { _mm_setcsr(_mm_getcsr() | 0x8040); }\n\
                #else\n\
                __attribute__((constructor)) static void on(void) {\n\
                  unsigned long f; __asm__ volatile(\"mrs %0, fpcr\" : \"=r\"(f));\n\
                  __asm__ volatile(\"msr fpcr, %0\" : : \"r\"(f | 1ul << 24)); }\n\
                #endif\n";
    std::fs::write(&source, text).expect("the home can be written");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(compiled.is_ok_and(|status| status.success()), "cc, which every build needs, makes a library");
    library
}

#[test]
fn a_process_that_flushes_subnormals_on_every_thread_has_the_same_weights() {
    let home = Home::new();
    let library = library_that_flushes(&home);
    let preloaded = hash(&home, "preloaded", ("LD_PRELOAD", library.to_str().expect("a path in UTF-8")));
    assert_eq!(preloaded, hash(&home, "plain", ("LD_PRELOAD", "")));
}

#[test]
fn every_instruction_set_gives_the_same_weights_for_any_workers() {
    let home = Home::new();
    let widest = hash(&home, "widest", ("FAILPOINTS", ""));
    for most in ["1", "2"] {
        let narrowed = format!("instructions=return({most})");
        assert_eq!(hash(&home, &format!("narrowed-{most}"), ("FAILPOINTS", &narrowed)), widest);
        let alone = format!("train --epochs 1 --workers 1 --slots 2 --run-dir alone-{most}");
        home.coordinator(&alone).env("FAILPOINTS", &narrowed).succeeds();
        assert_eq!(home.run(&format!("alone-{most}")).hash(), widest, "one worker, {narrowed}");
    }
}
