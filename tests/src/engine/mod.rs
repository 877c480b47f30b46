//! A real container engine, used with its commands `docker`, and `docker compose` or `docker-compose`.
//!
//! - [`Engine`]: the commands, for one test at a time.
//! - [`compose`]: a cluster of containers, by the project's `compose.yaml`.
//! - [`container`]: one of its containers, and the faults that a test can cause.
//! - [`image`]: an image, built from a Dockerfile.
//!
//! The names of everything that a test creates on the engine begin with [`PREFIX`] and the test's process id. It is
//! removed when its value is dropped, also after a panic. `scripts/containers.sh sweep` removes what a killed test
//! has left.
//!
//! If no engine responds, or `TESTS_WITHOUT_CONTAINERS` gives a reason not to use it (`scripts/test.sh` sets it if
//! there are no base images), [`Engine::find`] returns none and reports it; with `CI=true` that is a failure.

pub mod compose;
pub mod container;
pub mod image;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ci;
use crate::home::{Call, Home, project};
use crate::patience;
use crate::peers::is_there;
use crate::process::Ended;

/// The prefix of all names that tests create on the engine.
pub const PREFIX: &str = "mftest-";

/// Only one cluster of containers runs at a time: more are too slow on two cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A container engine that responds.
#[derive(Debug)]
pub struct Engine {
    home: Home,
    /// Its command.
    compose: &'static str,
    _alone: MutexGuard<'static, ()>,
}

impl Engine {
    /// The engine of this machine, if there is one; reports it if there is none.
    ///
    /// # Panics
    /// If there is none with `CI=true`, where nothing is skipped.
    pub fn find() -> Option<Self> {
        if let Some(reason) = std::env::var_os("TESTS_WITHOUT_CONTAINERS") {
            ci::skip(&reason.to_string_lossy());
            return None;
        }
        let home = Home::new();
        let found = compose_command(&home).filter(|_| answers(&home, "docker version"));
        let Some(compose) = found else {
            ci::skip("no Docker engine with compose answers (https://docs.docker.com/engine/install)");
            return None;
        };
        patience::count_other_processes();
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Self { home, compose, _alone: alone })
    }

    /// This test's own directory on this machine.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The command `docker`, with arguments as in a shell without quotes.
    pub fn docker(&self, arguments: &str) -> Call {
        self.home.call(Path::new("docker"), arguments)
    }

    /// The output of a `docker` command, of at most one line.
    pub(crate) fn docker_says(&self, arguments: &str) -> String {
        self.docker(arguments).succeeds().stdout.trim().to_string()
    }

    /// The command `docker compose`, or `docker-compose` if only that is installed, in the project's directory.
    fn compose(&self, arguments: &str) -> Call {
        typed(&self.home, &format!("{} {arguments}", self.compose)).directory(&project())
    }
}

fn compose_command(home: &Home) -> Option<&'static str> {
    ["docker compose", "docker-compose"]
        .into_iter()
        .find(|command| answers(home, &format!("{command} version")))
}

fn answers(home: &Home, command: &str) -> bool {
    let program = command.split(' ').next().unwrap_or_default();
    is_there(Path::new(program)) && typed(home, command).run().code() == Some(0)
}

/// A command with arguments as in a shell without quotes.
fn typed(home: &Home, command: &str) -> Call {
    let (program, arguments) = command.split_once(' ').unwrap_or((command, ""));
    home.call(Path::new(program), arguments)
}

/// A new name on the engine.
pub(crate) fn fresh_name(what: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    format!("{PREFIX}{}-{what}{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Removes something. A failure is not reported if the test already panics.
pub(crate) fn remove(call: Call) {
    let ended = call.run();
    if ended.code() != Some(0) && !std::thread::panicking() {
        panic!("left on the engine: {ended}");
    }
}

/// The output of `docker inspect` for one object.
pub(crate) fn inspected(ended: &Ended) -> serde_json::Value {
    let list: serde_json::Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended}"));
    list[0].clone()
}
