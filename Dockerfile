# The image of Millefeuille: the binary millefeuille, by its own name, as coordinator and as worker, OpenBLAS, and nothing else beyond a slim Debian.
#
#   docker build -t millefeuille .
#   docker run --rm millefeuille coordinator train --epochs 5
#
# Builds with BuildKit and with the builder before it, therefore without `RUN --mount`. What is slow comes first and
# depends on the manifests alone: a change of source compiles this project's own packages and no other.
# Dockerfile.prebuilt makes the same image from binaries that are built already.

ARG RUST_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

# The sources, sorted: what says which dependencies there are, and what changes every day.
FROM ${RUNTIME_IMAGE} AS sources
LABEL millefeuille.stage=sources
WORKDIR /context
COPY . .
# Of manifests there are all, and where cargo looks for a package's programs and libraries, empty ones.
RUN cp -a . /manifests && cd /manifests \
    && find . -type f ! -name 'Cargo.*' ! -name build.rs ! -path '*/src/lib.rs' ! -path '*/src/main.rs' \
        ! -path '*/src/bin/*.rs' -delete \
    && find . -name '*.rs' | while read -r file; do echo '#![allow(warnings)] fn main() {}' >"$file"; done \
    && find . -type d -empty -delete
# Tests and benchmarks are not built: the empty ones do, and a change of theirs builds nothing.
RUN cp -a . /sources && rm -rf /sources/target /sources/tests /sources/bench

FROM ${RUST_IMAGE} AS dependencies
LABEL millefeuille.stage=dependencies
RUN apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends libopenblas-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
# Writes the list of dependencies into the binaries, for scanners: `cargo audit bin`, `trivy`, `grype`.
ARG CARGO_AUDITABLE_VERSION=0.7.7
RUN cargo install --quiet --locked "cargo-auditable@${CARGO_AUDITABLE_VERSION}" && rm -rf "${CARGO_HOME}/registry"
WORKDIR /build
COPY --from=sources /manifests .
# All dependencies. The empty programs are forgotten again: files that are copied keep their time, and an old source
# would look to cargo as if it were in the newer binary.
RUN cargo auditable build --release --locked \
    && cargo clean --release --locked $(sed -n 's/^name = "\(millefeuille-.*\)"/-p \1/p' */Cargo.toml)

FROM dependencies AS build
LABEL millefeuille.stage=build
COPY --from=sources /sources .
RUN cargo auditable build --release --locked
# What goes into the image, with modes that do not depend on the umask under which the sources were checked out.
RUN install -D -m 0755 -t /image/usr/local/bin target/release/millefeuille \
    && ln -s millefeuille /image/usr/local/bin/coordinator \
    && ln -s millefeuille /image/usr/local/bin/worker \
    && install -D -m 0755 deploy/docker/entrypoint.sh /image/usr/local/bin/entrypoint \
    && install -D -m 0644 -t /image/millefeuille/jobs jobs/*.toml \
    && install -D -m 0644 -t /image/usr/share/doc/millefeuille LICENSE-APACHE LICENSE-MIT data/mnist/README.md

# From here on Dockerfile and Dockerfile.prebuilt say the same, word for word.
FROM ${RUNTIME_IMAGE}
# OpenBLAS as the host's package has it, so that the same kernel gives the same bits in a container and outside. The
# certificates are for data at https:// and in object stores.
RUN apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends libopenblas0-pthread ca-certificates \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache \
        /var/lib/dpkg/*-old /var/log/apt /var/log/*.log \
# A named volume takes the owner of the directory that it is mounted on.
    && install -d -o 65532 -g 65532 /millefeuille/runs /tls/ca /tls/coordinator /tls/operator /tls/reader /tls/worker
COPY --from=build /image /
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Millefeuille" \
    org.opencontainers.image.description="Trains neural networks on many workers: the same model, bit for bit, however many there were" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="(MIT OR Apache-2.0) AND CC-BY-SA-3.0"
# Numbered, as Kubernetes can tell only of a number that it is not root.
USER 65532:65532
WORKDIR /millefeuille
# gRPC, and probes with metrics.
EXPOSE 7070 7071
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/entrypoint"]
CMD ["coordinator", "--help"]
