# Sluice's commands. Each installs what it lacks (Debian packages by apt-get, as root or through sudo) and builds what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

export PATH := $(HOME)/.cargo/bin:$(PATH)
CARGO := cargo
# Where cargo builds; what the tests install and write is there too.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Arguments for the server of `make run`, such as ARGS='--shards 2 --media-port 40000'.
ARGS ?=
# Arguments for the load test of `make demo`.
DEMO_ARGS ?= --publishers 1 --viewers 20 --seconds 10
# Arguments for `make interop`, such as INTEROP_ARGS='--only Firefox'.
INTEROP_ARGS ?=
# Some targets of `make fuzz`, all by default.
TARGETS ?=
# A network of its own for the real clients.
IN_NETWORK := SLUICE_TOOLS="$$(. .ci/env && echo "$$SLUICE_TOOLS")" server/tests/interop/in_network
# Arguments for `make soak`, whose time is SECONDS; `sluice-loadtest soak --help` lists them.
SOAK_ARGS ?=
# Arguments for `make bench`; `bench/run --help` lists them.
BENCH_ARGS ?=

.PHONY: help
help: ## List these commands
	@echo 'Sluice: WHIP in, WHEP out. Commands:'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name text; do \
	    printf '  make %-14s %s\n' "$$name" "$$text"; done

.PHONY: run
run: ## Build the server (release) and run it; ARGS='--shards 2' passes arguments on
	@.ci/install build
	$(CARGO) build --release --locked --package server
	$(TARGET)/release/sluice $(ARGS)

.PHONY: demo
demo: ## Run a server with 1 publisher and 20 viewers for 10 s and print the report
	@.ci/install build
	$(CARGO) build --release --locked --package server --package loadtest
	@.ci/demo $(DEMO_ARGS)

.PHONY: bench
bench: ## Measure the server beside a bare loop that sends the same packets, within 10 minutes; BENCH_ARGS='--rounds 1'
	@.ci/install bench
	$(CARGO) build --release --locked --package server --package loadtest
	$(CARGO) bench --locked --package media-core --no-run
	@bench/run $(BENCH_ARGS)
	@bench/report

.PHONY: soak
soak: ## Let clients come, go and vanish beside every attack for an hour, and look for leaks; SECONDS=900 SOAK_ARGS='--viewers 50'
	@.ci/install build
	$(CARGO) build --release --locked --package server --package loadtest
	@SOAK_SECONDS=$(or $(SECONDS),3600) .ci/soak $(SOAK_ARGS)

.PHONY: test
test: lint test-rust test-browser test-networks test-aiortc test-interop test-deploy ## Run everything that must pass before a change lands
	@echo '== every step passed'

.PHONY: lint
lint: ## Check formatting, clippy, the scripts, the pages under docs/, and the dependencies' licences
	@.ci/install build lint
	$(CARGO) fmt --all --check
	shellcheck --external-sources .ci/run .ci/env .ci/install .ci/demo .ci/soak .ci/deny .ci/fuzz server/tests/interop/in_network server/tests/networks/in_networks
	@.ci/conformance.py
	@.ci/check_docs.py
	@.ci/deny
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps

.PHONY: audit
audit: ## Check the dependencies for advisories; needs a network, and fails without
	@.ci/install lint
	@SLUICE_REQUIRE_ADVISORIES=1 .ci/deny

# One build for the tests of every kind: the browser and aiortc tests run its debug binary. Building all targets at once
# keeps one set of crate features, so that nothing is compiled twice.
.PHONY: build-tests
build-tests:
	@.ci/install build
	$(CARGO) build --locked --workspace --all-targets

.PHONY: test-rust
test-rust: build-tests ## Run the Rust tests only
	@.ci/install network
	$(CARGO) test --locked --workspace

.PHONY: test-bundled
test-bundled: ## Run the DTLS and SRTP tests with the bundled libsrtp instead of the system's; not part of `make test`
	@.ci/install build
	$(CARGO) test --locked --package media-core --features bundled-libsrtp --lib -- srtp:: dtls:: nonces::

.PHONY: test-newer-openssl
test-newer-openssl: ## Run the core's tests with OpenSSL 3.6 and 4.0, built from source; not part of `make test`
	@.ci/install build openssl
	$(CARGO) test --locked --package media-core --features newer-openssl --lib
	folder=$$($(CARGO) run --quiet --locked --manifest-path .ci/openssl-4/Cargo.toml --target-dir $(TARGET)/openssl-4); \
	OPENSSL_DIR=$$folder OPENSSL_STATIC=1 $(CARGO) test --locked --package media-core --lib --target-dir $(TARGET)/with-openssl-4

.PHONY: test-browser
test-browser: build-tests ## Run the end-to-end tests in headless Chromium only
	@.ci/install browser python
	node --test --test-concurrency=1 $(wildcard server/tests/browser/*.test.js)

.PHONY: test-networks
test-networks: build-tests ## Run Chromium behind NATs, firewalls and TURN servers, in network namespaces, only
	@.ci/install networks
	server/tests/networks/in_networks node --test --test-concurrency=1 $(wildcard server/tests/networks/*.test.js)

.PHONY: test-aiortc
test-aiortc: build-tests ## Run the end-to-end tests with aiortc only
	@.ci/install python
	$(TARGET)/venv/bin/python -m pytest -q -p no:cacheprovider server/tests/aiortc

.PHONY: test-interop
test-interop: build-tests ## Run one pair of each kind of real client only: Firefox, GStreamer, FFmpeg, libdatachannel and more
	@.ci/install interop
	$(IN_NETWORK) node server/tests/interop/run.js --quick
	$(IN_NETWORK) node server/tests/interop/layers.js

.PHONY: interop
interop: build-tests ## Run every pair of real clients with every codec and write docs/interop.md; 10 minutes on two cores
	@.ci/install interop
	$(IN_NETWORK) node server/tests/interop/run.js --table docs/interop.md $(INTEROP_ARGS)

.PHONY: interop-record
interop-record: build-tests ## Record the offers of the real clients under signaling/tests/golden
	@.ci/install interop
	$(IN_NETWORK) node server/tests/interop/record.js signaling/tests/golden

.PHONY: test-deploy
test-deploy: build-tests ## Check the files under deploy/ and .github/ only
	@.ci/install deploy
	$(TARGET)/venv/bin/python .ci/check_deploy.py

.PHONY: fuzz
fuzz: ## Run every fuzz target for SECONDS (60) each; TARGETS='session rtcp' for some of them
	@.ci/install fuzz
	@.ci/fuzz $(or $(SECONDS),60) $(TARGETS)

.PHONY: recordings
recordings: ## Let FFmpeg's decoders judge the recorded streams of media-core/tests/recorded again
	@.ci/install recordings
	@media-core/tests/recorded/make.py --check
	@media-core/tests/recorded/layers/make.py --check

.PHONY: screenshot
screenshot: build-tests ## Update the screenshot of README.md
	@.ci/install browser
	node docs/screenshot.mjs

.PHONY: fmt
fmt: ## Format the code
	$(CARGO) fmt --all

.PHONY: clean
clean: ## Remove everything that was built or installed inside this folder
	$(CARGO) clean
	rm -rf $(TARGET) server/tests/browser/node_modules server/tests/interop/node_modules
