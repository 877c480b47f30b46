//! An image, built from one of the project's Dockerfiles.

use std::path::Path;

use serde_json::Value;

use super::{Engine, fresh_name, inspected, remove};
use crate::home::{Call, project};
use crate::process::Ended;

/// An image. It is removed when the value is dropped.
#[derive(Debug)]
pub struct Image<'e> {
    engine: &'e Engine,
    /// Its name.
    pub name: String,
    /// The build's output.
    pub log: String,
}

impl Engine {
    /// Builds the image of a Dockerfile of the project.
    pub fn build(&self, dockerfile: &str) -> Image<'_> {
        self.build_of(&project(), &format!("--file {dockerfile}"))
    }

    /// Builds an image from another directory, with these flags.
    pub fn build_of(&self, directory: &Path, flags: &str) -> Image<'_> {
        let name = fresh_name("image");
        let ended = self.docker(&format!("build --tag {name} {flags} .")).directory(directory).succeeds();
        Image { engine: self, name, log: ended.stdout + &ended.stderr }
    }
}

impl Image<'_> {
    /// Its id: equal for equal images.
    pub fn id(&self) -> String {
        self.inspect()["Id"].as_str().unwrap_or_default().to_string()
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.inspect()["Size"].as_u64().expect("an image has a size")
    }

    /// What `docker inspect` reports about it.
    pub fn inspect(&self) -> Value {
        inspected(&self.engine.docker(&format!("image inspect {}", self.name)).succeeds())
    }

    /// Runs a command in a container that is removed afterwards.
    pub fn run(&self, command: &str) -> Ended {
        self.run_with("", command)
    }

    /// The same, with flags of `docker run`.
    pub fn run_with(&self, flags: &str, command: &str) -> Ended {
        self.call(flags, command).run()
    }

    /// Such a command, not yet run.
    pub fn call(&self, flags: &str, command: &str) -> Call {
        let name = fresh_name("run");
        self.engine.docker(&format!("run --rm --name {name} {flags} {} {command}", self.name))
    }
}

impl Drop for Image<'_> {
    fn drop(&mut self) {
        remove(self.engine.docker(&format!("image rm {}", self.name)));
    }
}
