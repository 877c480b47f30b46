//! Compiles the messages of ONNX without `protoc`.

const FILE: &str = "src/export/onnx.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={FILE}");
    let files = protox::compile([FILE], ["src/export"])?;
    prost_build::Config::new().compile_fds(files)?;
    Ok(())
}
