//! Data at addresses: in a store that speaks S3's protocol, and on a web server. `scripts/peers.sh` installs that server.

use std::fmt::Write as _;

use millefeuille_tests::home::{Call, Home, project};
use millefeuille_tests::http::Port;
use millefeuille_tests::peers;
use millefeuille_tests::process::Process;

const SECRET: &str = "a-secret-that-nobody-may-see";

/// Two columns and which of them is larger.
fn table() -> String {
    (0..200).fold("a,b,y\n".to_owned(), |mut text, row| {
        let (a, b) = (row * 37 % 101, row * 53 % 97);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{a},{b},{}", u32::from(a > b));
        text
    })
}

fn job(source: &str) -> String {
    format!(
        "name = \"larger\"\n[data]\nsource = \"{source}\"\ntarget = \"y\"\nnormalize = \"standardize\"\ntest_split = 0.1\n\
         [[layers]]\ntype = \"dense\"\nunits = 1\nactivation = \"sigmoid\"\n\
         [compile]\nloss = \"binary_crossentropy\"\n[fit]\nepochs = 2\nbatch_size = 20\n"
    )
}

/// A home and a store with the table; none if there is no server.
struct Store {
    home: Home,
    port: Port,
    _server: Process,
}

impl Store {
    fn new() -> Option<Self> {
        let home = Home::new();
        let (server, port) = peers::object_store(&home)?;
        let store = Self { home, port, _server: server };
        store.put("/bucket", b"");
        store.put("/bucket/tables/larger.csv", table().as_bytes());
        Some(store)
    }

    fn put(&self, path: &str, body: &[u8]) {
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: {}\r\nx-amz-acl: public-read\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.port.0,
            body.len()
        );
        let answer = self.port.answer(&[head.as_bytes(), body].concat());
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// A command that has credentials for the store.
    fn coordinator(&self, arguments: &str) -> Call {
        self.without_credentials(arguments)
            .env("AWS_ACCESS_KEY_ID", "me")
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
    }

    fn without_credentials(&self, arguments: &str) -> Call {
        let call = self.home.coordinator(arguments);
        call.env("AWS_ENDPOINT", format!("http://{}", self.port.0)).env("AWS_ALLOW_HTTP", "true")
    }
}

#[test]
fn data_of_a_store_gives_the_model_of_the_same_file() {
    let Some(store) = Store::new() else { return };
    store.home.write("larger.csv", table());
    store.home.write("here.toml", job("larger.csv"));
    store.home.write("s3.toml", job("s3://bucket/tables/larger.csv"));
    store.home.write("http.toml", job(&format!("http://{}/bucket/tables/larger.csv", store.port.0)));

    let mut said = String::new();
    for name in ["here", "s3", "http"] {
        let train = format!("-vv train {name}.toml --workers 2 --run-dir {name}");
        let ended = store.coordinator(&train).succeeds();
        said += &(ended.stdout + &ended.stderr);
    }

    let here = store.home.run("here");
    for name in ["s3", "http"] {
        assert_eq!(store.home.run(name).hash(), here.hash(), "{name}");
        // What was trained on is read again.
        store.coordinator(&format!("verify {name}")).succeeds();
        store.coordinator(&format!("evaluate {name}")).succeeds();
    }
    let predicted = store.coordinator("predict s3 s3://bucket/tables/larger.csv --csv").succeeds().stdout;
    let from_file = store.coordinator("predict here larger.csv --csv").succeeds().stdout;
    assert_eq!(predicted.replace("s3://bucket/tables/", ""), from_file);
    let files = store.home.path("s3");
    let written =
        std::fs::read_dir(files).unwrap().filter_map(|file| std::fs::read(file.unwrap().path()).ok());
    assert!(!said.contains(SECRET), "{said}");
    assert!(written.into_iter().all(|file| !String::from_utf8_lossy(&file).contains(SECRET)));
}

#[test]
fn what_is_wrong_with_an_address_is_said_in_a_line() {
    let Some(store) = Store::new() else { return };
    let port = &store.port.0;
    let says = |address: &str, code: i32, what: &str| {
        let error = store.coordinator("show data --data").arg(address).fails(code);
        assert!(error.contains(what), "{address}: {error}");
        assert!(!error.contains("hidden"), "{address}: {error}");
    };
    says("s3://bucket/none.csv", 3, "s3://bucket/none.csv: there is nothing at this address");
    says("s3://none/larger.csv", 3, "s3://none/larger.csv: there is nothing at this address");
    says(&format!("http://{port}/bucket/none.csv"), 3, "there is nothing at this address");
    says("s3://bucket/digits", 3, "s3://bucket/digits/train-images-idx3-ubyte: missing");
    says("http://127.0.0.1:1/a.csv", 3, "Connection refused");
    says(&format!("https://{port}/bucket/a.csv"), 3, "cannot be read");
    says("az://container/a.csv", 3, "AZURE_STORAGE_ACCOUNT_NAME");
    says("https://me:hidden@host/a.csv", 2, "--data https://…@host/a.csv: has a name or a password in it");
    says("https://host/a.csv?key=hidden", 2, "--data https://host/a.csv?…: ends in a query");
    says("s3://bucket", 2, "names no file");
}

#[test]
fn pictures_of_a_store_are_found_by_their_names() {
    let Some(store) = Store::new() else { return };
    let small = Home::small();
    for file in std::fs::read_dir(small.path("data")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        store.put(&format!("/bucket/digits/{name}"), &std::fs::read(&path).unwrap());
    }
    let job = std::fs::read_to_string(small.path("small.toml")).unwrap();
    store.home.write("small.toml", job.replace("\"data\"", "\"s3://bucket/digits\""));
    small.coordinator("train small.toml --workers 1 --run-dir run").succeeds();

    store.coordinator("train small.toml --workers 1 --run-dir run").succeeds();

    assert_eq!(store.home.run("run").hash(), small.run("run").hash());
}

#[test]
fn a_data_set_is_fetched_checked_and_resumed() {
    let Some(store) = Store::new() else { return };
    let files = project().join("data/mnist");
    let images = std::fs::read(files.join("train-images-idx3-ubyte.gz")).unwrap();
    for name in ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"] {
        let name = format!("{name}-ubyte.gz");
        store.put(&format!("/bucket/mnist/{name}"), &std::fs::read(files.join(&name)).unwrap());
    }
    let mirror = format!("http://{}/bucket/mnist", store.port.0);
    let fetch = || store.coordinator("fetch mnist --into mnist --mirror").arg(&mirror);

    // A download was interrupted in the middle, and another one at its end.
    store.home.write("mnist/train-images-idx3-ubyte.gz.part", &images[..images.len() / 2]);
    let labels = std::fs::read(files.join("train-labels-idx1-ubyte.gz")).unwrap();
    store.home.write("mnist/train-labels-idx1-ubyte.gz.part", labels);
    fetch().succeeds();
    assert_eq!(std::fs::read(store.home.path("mnist/train-images-idx3-ubyte.gz")).unwrap(), images);
    assert_eq!(std::fs::read_dir(store.home.path("mnist")).unwrap().count(), 4, "no part is left");
    assert_eq!(fetch().succeeds().stdout.matches("there already").count(), 4);
    let shown = store.coordinator("show data --data mnist").succeeds().stdout;
    assert!(shown.contains("60000") || shown.contains("60,000") || shown.contains("48,000"), "{shown}");

    // What is no part of the file is not kept.
    std::fs::remove_file(store.home.path("mnist/t10k-labels-idx1-ubyte.gz")).unwrap();
    store.home.write("mnist/t10k-labels-idx1-ubyte.gz.part", b"something else");
    let error = fetch().fails(3);
    assert!(error.contains(&format!("{mirror}/t10k-labels-idx1-ubyte.gz: is not the file")), "{error}");
    fetch().succeeds();

    let error = store.coordinator("fetch kmnist --into k --mirror http://127.0.0.1:1/k").fails(3);
    assert!(error.contains("http://127.0.0.1:1/k/train-images-idx3-ubyte.gz: cannot be read"), "{error}");
}
