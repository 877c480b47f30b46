# What people run, CI runs too: no target knows more than the command in it, which can be typed by hand.

# Named, so that the make of a Mac too looks commands up in the PATH set here.
SHELL := bash

# rustup puts cargo here; a terminal that was open before does not know it yet.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

RELEASE := $(or $(CARGO_TARGET_DIR),target)/release
EPOCHS ?= 5
ARGS ?=
FIRST ?= 0
SEEDS ?= 1000000

.DEFAULT_GOAL := help
.PHONY: help install build train check test test-nightly chaos soak bench bench-peers bench-faults clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 22

install: ## install what a build needs and is missing
	@scripts/install.sh

build: install ## build the binaries coordinator, worker and millefeuille into target/release
	cargo build --release --locked

train: build ## train the article's job on MNIST (EPOCHS=5, ARGS="--workers 4 …")
	$(RELEASE)/coordinator train --epochs $(EPOCHS) $(ARGS)

check: install ## the quick part of the tests: formatting, clippy, unit tests
	@scripts/test.sh quick

test: install ## every test but the nightly ones, cheapest first
	@scripts/test.sh all

test-nightly: install ## the image from its sources, a million simulated seeds, an hour of chaos
	@scripts/test.sh nightly
	@$(MAKE) --no-print-directory soak
	@$(MAKE) --no-print-directory chaos SECONDS=$(or $(SECONDS),3600)

chaos: install ## inject random faults into a cluster (SECONDS=60, SEED=… repeats a run)
	cargo build --workspace --bins --locked
	CHAOS_SECONDS=$(or $(SECONDS),60) CHAOS_SEED=$(SEED) cargo test --locked -p millefeuille-tests --test chaos -- --nocapture

soak: install ## simulate the control machine with a million seeds (SEEDS=1000000 FIRST=0)
	cargo run --release --locked -p millefeuille-tests --bin simulate -- --first $(FIRST) --seeds $(SEEDS)

bench: build ## measure against the single-process baseline and write bench/latest.json (ARGS="…")
	cargo run --release --locked -p millefeuille-bench -- $(ARGS)

bench-peers: build ## measure against Keras and PyTorch and write bench/peers.json (ARGS="…")
	@scripts/bench-peers.sh
	cargo run --release --locked -p millefeuille-bench -- peers $(ARGS)

bench-faults: build ## measure what losing workers costs and write bench/faults.json (ARGS="…")
	cargo run --release --locked -p millefeuille-bench -- faults $(ARGS)

clean: ## delete what was built (runs stay)
	cargo clean
