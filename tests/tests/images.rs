//! The container images, built by a real engine from the project's Dockerfiles.

use std::fs;
use std::path::Path;
use std::process::Command;

use millefeuille_tests::engine::Engine;
use millefeuille_tests::engine::image::Image;
use millefeuille_tests::home::project;
use serde_json::json;

/// The size that the programs, the job and the licences may add to the slim base and OpenBLAS.
const OUR_SHARE: u64 = 40 << 20;

fn text(file: &str) -> String {
    fs::read_to_string(project().join(file)).expect("the file is there")
}

#[test]
fn both_dockerfiles_have_the_same_final_stage() {
    const FROM_HERE_ON: &str = "# From here on Dockerfile and Dockerfile.prebuilt say the same";
    let [full, prebuilt] = ["Dockerfile", "Dockerfile.prebuilt"].map(|file| {
        let text = text(file);
        text[text.find(FROM_HERE_ON).unwrap_or_else(|| panic!("{file}: {FROM_HERE_ON}"))..].to_string()
    });
    assert_eq!(full, prebuilt);
}

#[test]
fn dockerfiles_build_with_every_builder() {
    for file in ["Dockerfile", "Dockerfile.prebuilt"] {
        let text = text(file);
        let steps = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        for newer in ["--mount", "--chmod", "--link", "<<"] {
            assert!(!steps.contains(newer), "{file}: {newer}");
        }
        assert!(!text.contains("syntax="), "{file}: it would fetch another builder");
    }
}

/// Asserts the properties of the image that its users rely on.
fn is_as_promised(image: &Image<'_>) {
    let config = image.inspect()["Config"].clone();
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["WorkingDir"], "/millefeuille");
    assert_eq!(config["StopSignal"], "SIGTERM");
    let environment = config["Env"].as_array().expect("an image has an environment");
    assert!(
        environment.iter().all(|set| set.as_str().is_some_and(|set| set.starts_with("PATH="))),
        "{environment:?}"
    );
    let version = concat!("coordinator ", env!("CARGO_PKG_VERSION"));
    assert_eq!(image.run("coordinator --version").with_code(0).stdout.trim(), version);
    assert_eq!(config["Labels"]["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(config["Labels"]["org.opencontainers.image.revision"], json!("unknown"));

    assert!(image.run("worker --version").with_code(0).stdout.starts_with("worker "));
    assert!(image.run("").with_code(0).stdout.contains("Usage: coordinator"), "without a command it helps");
    let error = image.run("bash").error(2);
    assert!(error.starts_with("bash is no program of this image: say coordinator … or worker …"), "{error}");
    let usage = image.run("coordinator train --epochs none").with_code(2);
    assert!(usage.stderr.contains("--epochs"), "{usage}");

    let listed = |places: &str| {
        let script = format!("find {places} -printf '%M %U %p\\n' | sort -k 3");
        let ended = image.call("--entrypoint sh", "-c").arg(script).succeeds();
        ended.stdout.lines().map(str::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        listed("/usr/local/bin /millefeuille /tls"),
        [
            "drwxr-xr-x 0 /millefeuille",
            "drwxr-xr-x 0 /millefeuille/jobs",
            "-rw-r--r-- 0 /millefeuille/jobs/article.toml",
            "-rw-r--r-- 0 /millefeuille/jobs/breast-cancer.toml",
            "-rw-r--r-- 0 /millefeuille/jobs/diabetes.toml",
            "-rw-r--r-- 0 /millefeuille/jobs/digits.toml",
            "-rw-r--r-- 0 /millefeuille/jobs/fashion-mnist.toml",
            "-rw-r--r-- 0 /millefeuille/jobs/mnist-relu-adam.toml",
            "drwxr-xr-x 65532 /millefeuille/runs",
            "drwxr-xr-x 0 /tls",
            "drwxr-xr-x 65532 /tls/ca",
            "drwxr-xr-x 65532 /tls/coordinator",
            "drwxr-xr-x 65532 /tls/operator",
            "drwxr-xr-x 65532 /tls/reader",
            "drwxr-xr-x 65532 /tls/worker",
            "drwxr-xr-x 0 /usr/local/bin",
            "lrwxrwxrwx 0 /usr/local/bin/coordinator",
            "-rwxr-xr-x 0 /usr/local/bin/entrypoint",
            "-rwxr-xr-x 0 /usr/local/bin/millefeuille",
            "lrwxrwxrwx 0 /usr/local/bin/worker",
        ]
    );
    // No build tools and no downloads of apt.
    let found = image
        .call("--entrypoint sh", "-c")
        .arg("command -v gcc cargo curl; ls -A /var/lib/apt/lists /var/cache/apt");
    let found = found.run().stdout;
    assert_eq!(found.split_whitespace().collect::<Vec<_>>(), ["/var/cache/apt:", "/var/lib/apt/lists:"]);
}

/// The size of the layer with our files.
fn our_share(engine: &Engine, image: &Image<'_>) -> u64 {
    let layers = engine.docker(&format!(
        "history --human=false --no-trunc --format {{{{.Size}}}};{{{{.CreatedBy}}}} {}",
        image.name
    ));
    let layers = layers.succeeds().stdout;
    let ours = layers.lines().find(|layer| layer.contains("COPY")).unwrap_or_else(|| panic!("{layers}"));
    ours.split(';').next().and_then(|size| size.parse().ok()).expect("a layer has a size")
}

#[test]
fn the_image_contains_only_what_is_needed() {
    let Some(engine) = Engine::find() else { return };

    let image = engine.build("Dockerfile.prebuilt");

    is_as_promised(&image);
    let share = our_share(&engine, &image);
    assert!(share < OUR_SHARE, "{share} bytes");
}

/// A copy of the build context, with a change of its sources.
fn changed_copy(directory: &Path) {
    let script = format!(
        "tar -C {} --exclude ./target --exclude ./.git --exclude ./runs -c . | tar -x && echo '// A change.' >>core/src/lib.rs",
        project().display()
    );
    let copied =
        Command::new("sh").arg("-c").arg(script).current_dir(directory).status().expect("there is a shell");
    assert!(copied.success());
}

/// Compiles everything once: runs only in `make test-nightly`.
#[test]
fn the_image_builds_from_sources_and_trains() {
    let Some(engine) = Engine::find() else { return };

    let image = engine.build("Dockerfile");

    is_as_promised(&image);
    let trained =
        image.run_with("--read-only --tmpfs /millefeuille/runs:uid=65532", "coordinator train --epochs 1");
    let alone = engine.home().undisturbed("--epochs 1");
    assert!(trained.with_code(0).stdout.contains(&format!("weights_sha256 {}", alone.hash())));

    // Scanners find the list of dependencies in the programs.
    for program in ["coordinator", "worker"] {
        let found =
            image.call("--entrypoint grep", &format!("--count --text .dep-v0 /usr/local/bin/{program}"));
        found.succeeds();
    }

    // After a change of the sources, no dependency is compiled again.
    let dependencies = engine.build_of(&project(), "--target dependencies");
    let changed = engine.home().path("changed");
    fs::create_dir(&changed).unwrap();
    changed_copy(&changed);
    assert_eq!(engine.build_of(&changed, "--target dependencies").id(), dependencies.id());
    assert_ne!(
        engine.build_of(&changed, "--target sources").id(),
        engine.build_of(&project(), "--target sources").id()
    );
}
