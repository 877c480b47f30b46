//! A coordinator as a server: what one caller, one job or one disk does must not cost the others.

use millefeuille_proto::v1;
use millefeuille_tests::cluster::Cluster;
use millefeuille_tests::data::SMALL_JOB;
use millefeuille_tests::home::Home;
use millefeuille_tests::process::until;

fn small() -> Home {
    let home = Home::new();
    home.small_job();
    home
}

/// The small job, with other epochs and another name.
fn job(name: &str, epochs: u32) -> String {
    SMALL_JOB
        .replace("\"small\"", &format!("\"{name}\""))
        .replace("epochs = 3", &format!("epochs = {epochs}"))
}

#[test]
fn a_cancelled_job_whose_data_hangs_blocks_no_later_one() {
    let home = small();
    let call = home.serve("127.0.0.1:0", "").env("FAILPOINTS", "data-before-read=1*sleep(600000)");
    let mut cluster = Cluster::start(&home, call);
    let client = cluster.client();
    let hangs = client.submit(&job("hangs", 1), "").unwrap();
    let next = client.submit(&job("next", 1), "").unwrap();
    until("the data is being read", || {
        let job = client.jobs().into_iter().find(|job| job.id == hangs).expect("it is listed");
        (job.detail == "reading the data").then_some(())
    });

    assert_eq!(client.cancel(&hangs).unwrap().state(), v1::JobState::Cancelled);

    let _worker = cluster.joined_by("--slots 1");
    cluster.job_is(&client, &next, "done");
    // The end of a job that never ran is on disk: nothing brings it back.
    assert!(!home.path("runs").join(&hangs).join("run.json").exists());
    cluster.is_killed();
    cluster.comes_back("");
    assert_eq!(cluster.client().job_state(&hangs), "");
    assert_eq!(cluster.client().job_state(&next), "done");
}
