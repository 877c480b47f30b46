//! The commands of the runbook, deploy/README.md.

use std::fs;

use crate::home::project;

/// The runbook.
///
/// # Panics
/// If it does not exist.
pub fn runbook() -> String {
    fs::read_to_string(project().join("deploy/README.md")).expect("the runbook is there")
}

/// The commands in its blocks of a kind, such as `compose`, in their order.
///
/// # Panics
/// If there are too few: then the blocks have another name.
pub fn commands(kind: &str) -> Vec<String> {
    let (mut commands, mut inside) = (Vec::new(), false);
    for line in runbook().lines() {
        match line.strip_prefix("```") {
            Some(language) => inside = language == format!("sh {kind}"),
            None if inside => commands.push(line.to_string()),
            None => {}
        }
    }
    assert!(commands.len() > 10, "there are commands for {kind}");
    commands
}

/// The commands that `kubectl` runs in a pod, without pipes.
pub fn in_pods() -> Vec<String> {
    let commands = commands("kubectl").into_iter();
    let inner = commands.filter_map(|command| {
        let (kubectl, inner) = command.split_once(" -- ")?;
        (!kubectl.contains(" -i ") && !inner.contains(['<', '>'])).then(|| inner.to_string())
    });
    inner.collect()
}
