//! Applies CONTRIBUTING's steps to add a loss to a copy of `core`, and runs its tests.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A block of code in CONTRIBUTING that names a file of `core` in its first line.
struct Block {
    file: String,
    lines: Vec<String>,
}

fn blocks() -> Vec<Block> {
    let text = fs::read_to_string(Path::new(REPOSITORY).join("CONTRIBUTING.md")).unwrap();
    let (mut blocks, mut lines) = (Vec::new(), text.lines());
    while let Some(fence) = lines.find(|line| line.trim() == "```rust") {
        let indent = fence.len() - fence.trim_start().len();
        let body = lines.by_ref().take_while(|line| line.trim() != "```");
        let mut body = body.map(|line| line.get(indent..).unwrap_or_default().to_string());
        if let Some(file) = body.next().and_then(|line| Some(line.strip_prefix("// core/")?.to_string())) {
            blocks.push(Block { file, lines: body.collect() });
        }
    }
    blocks
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

/// A workspace of `core` alone, without the release profiles.
fn workspace(to: &Path) {
    let from = Path::new(REPOSITORY);
    for part in ["Cargo.lock", "core", "data/mnist"] {
        fs::create_dir_all(to.join(part).parent().unwrap()).unwrap();
        copy(&from.join(part), &to.join(part));
    }
    // The settings that all packages share, without the profiles.
    let manifest = fs::read_to_string(from.join("Cargo.toml")).unwrap();
    let shared = manifest.find("[workspace.package]").expect("packages share something");
    let profiles = manifest.find("[profile.").expect("profiles come last");
    let head = "[workspace]\nresolver = \"3\"\nmembers = [\"core\"]\n\n";
    fs::write(to.join("Cargo.toml"), format!("{head}{}", &manifest[shared..profiles])).unwrap();
}

/// Inserts the lines of a registry: modules before the first module, variants before the first variant.
fn register(file: &Path, lines: &[String]) {
    let text = fs::read_to_string(file).unwrap();
    let (modules, variants): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.starts_with("mod "));
    let mut changed = String::new();
    for line in text.lines() {
        if line.starts_with("mod ") && !changed.contains(modules[0]) {
            modules.iter().for_each(|module| changed += &format!("{module}\n"));
        }
        changed += &format!("{line}\n");
        if line.trim_start().starts_with("pub enum ") && !changed.contains(variants[0]) {
            variants.iter().for_each(|variant| changed += &format!("{variant}\n"));
        }
    }
    fs::write(file, changed).unwrap();
}

/// A target directory beside the tested binaries, so that dependencies are compiled once.
fn target() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).expect("tests lie in target/debug/deps").join("newcomer")
}

#[test]
fn a_loss_can_be_added_as_contributing_says() {
    let home = tempfile::tempdir().unwrap();
    workspace(home.path());
    let [file, registry] = &blocks()[..] else { panic!("CONTRIBUTING shows a file and its registry") };
    let at = |block: &Block| home.path().join("core").join(&block.file);
    assert!(!at(file).exists(), "{} is there already: CONTRIBUTING needs another example", file.file);
    fs::write(at(file), file.lines.join("\n")).unwrap();
    register(&at(registry), &registry.lines);

    let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["test", "--offline", "--package", "millefeuille-core", "--lib", "--test", "vectors"])
        .args(["--", "heads::", "registry::", "gradients"])
        .current_dir(home.path())
        .env("CARGO_TARGET_DIR", target())
        .output()
        .unwrap();

    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{errors}");
    let module = Path::new(&file.file).file_stem().unwrap().to_str().unwrap();
    let passed = out.lines().filter(|line| line.contains(module) && line.ends_with("... ok")).count();
    assert_eq!(passed, file.lines.iter().filter(|line| line.trim() == "#[test]").count(), "{out}");
}
