//! The wire contract, and the conversions between its message types and the program's own types.
//!
//! The `.proto` files in this package are the contract; prost and tonic generate [`v1`] from them. The rest of the
//! program uses the types of `millefeuille-core`; [`convert`] converts between the two, and validates what a peer
//! sent.

pub mod buffer;
pub mod convert;
pub mod session;
pub mod shared;
pub mod tallies;
pub mod tls;
pub mod wire;

/// The generated messages, clients and servers of package `millefeuille.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("millefeuille.v1");
}

/// The compiled `.proto` files, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The version of the protocol between coordinator and worker. Another version is refused.
pub const PROTOCOL_VERSION: u32 = 3;
