//! A real container engine, by the commands that people type: `docker`, and `docker compose` or `docker-compose`.
//!
//! - [`Engine`]: the commands, for one test at a time.
//! - [`compose`]: a cluster of containers, by the project's `compose.yaml`.
//! - [`container`]: one of its containers, and what can happen to it.
//! - [`image`]: an image, built from a Dockerfile.
//!
//! Whatever a test puts on the engine has a name that begins with [`PREFIX`] and the test's process, and is removed with the
//! value that stands for it, also after a panic. What a killed test has left, `scripts/containers.sh sweep` removes.
//!
//! Where no engine answers, or `TESTS_WITHOUT_CONTAINERS` says why there is nothing to be done with it (as `scripts/test.sh` does
//! where there are no base images), [`Engine::find`] gives none and says so; with `CI=true` that is a failure.

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

/// How everything's name begins that tests put on the engine.
pub const PREFIX: &str = "mftest-";

/// Two cores bear one cluster of containers at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A container engine that answers.
#[derive(Debug)]
pub struct Engine {
    home: Home,
    /// As people type it.
    compose: &'static str,
    _alone: MutexGuard<'static, ()>,
}

impl Engine {
    /// The engine of this machine, if there is one; says so if there is none.
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
        patience::others_work();
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Self { home, compose, _alone: alone })
    }

    /// A directory of this test's own on this machine.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The command `docker`, with arguments as in a shell without quotes.
    pub fn docker(&self, arguments: &str) -> Call {
        self.home.call(Path::new("docker"), arguments)
    }

    /// What a `docker` command says in one line or none.
    pub(crate) fn docker_says(&self, arguments: &str) -> String {
        self.docker(arguments).succeeds().stdout.trim().to_string()
    }

    /// The command `docker compose`, or `docker-compose` where that is what there is, in the project's directory.
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

/// A command as people type it, without quotes.
fn typed(home: &Home, command: &str) -> Call {
    let (program, arguments) = command.split_once(' ').unwrap_or((command, ""));
    home.call(Path::new(program), arguments)
}

/// A name that nothing else on the engine has.
pub(crate) fn fresh_name(what: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    format!("{PREFIX}{}-{what}{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Removes something; a test that panics already has other things to say than that this failed.
pub(crate) fn remove(call: Call) {
    let ended = call.run();
    if ended.code() != Some(0) && !std::thread::panicking() {
        panic!("left on the engine: {ended}");
    }
}

/// What `docker inspect` says, of one thing.
pub(crate) fn inspected(ended: &Ended) -> serde_json::Value {
    let list: serde_json::Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended}"));
    list[0].clone()
}
