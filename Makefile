# Everything runs through here; the only things needed beforehand are Rust, Python 3.10 or newer,
# a C compiler and make. `make run` shows the chat, `make test` runs every test.

PORT ?= 8000
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
HUB := target/release/mercure-hub
# Tests drive the hub that the tests of the hub are built with: nothing is built twice.
TEST_HUB := target/debug/mercure-hub
RUST := Cargo.toml Cargo.lock $(shell find crates -name '*.rs' -o -name Cargo.toml) $(wildcard web/*)
run drill screenshots: export MERCURE_HUB_BINARY := $(abspath $(HUB))
test-python test-conformance test-compat: export MERCURE_HUB_BINARY := $(abspath $(TEST_HUB))

.PHONY: run test tools test-rust test-python test-compat test-conformance test-quickstart test-package static package lint fmt drill bench soak screenshots fuzz docs wheel clean help

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: $(HUB) $(VENV)/.installed ## Run the chat example (PORT=8000)
	@echo "The chat is at http://127.0.0.1:$(PORT) (Ctrl-C ends it)"
	@cd examples/chat && exec ../../$(BIN)/gunicorn -w 2 -b 127.0.0.1:$(PORT) app:app

test: lint test-rust test-conformance test-compat test-python test-quickstart test-package ## Run every check and every test

tools: # What the tests drive, installed if need be and allowed
	scripts/test-tools

test-rust: tools ## Run the tests of the hub, and every fuzz target on its seeds
	cargo test --locked --workspace --quiet
	cargo build --locked --quiet --package mercure-bench --package mercure-hub
	target/debug/compare --short --rounds 1 --plot target/compare.svg
	target/debug/compare engine --subscribers 2000
	target/debug/compare fleet

test-python: $(TEST_HUB) $(VENV)/.tests $(VENV)/peers $(VENV)/oldest tests/clients/node_modules ## Run the tests of the extension, with real servers and Chromium
	$(BIN)/pytest

test-conformance: $(TEST_HUB) $(VENV)/.tests ## Judge the hub, or another one: JUDGE="--hub-url https://… --publisher-key …"
	$(BIN)/pytest tests/conformance --quiet $(JUDGE)

test-compat: $(TEST_HUB) $(VENV)/.tests ## Check the documented interface of the releases before this one
	$(BIN)/pytest tests/compat --quiet

lint: $(VENV)/.tests ## Check format, lints, types and the import rules
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/basedpyright --level error
	$(BIN)/python scripts/check_imports.py
	$(BIN)/python scripts/check_size.py
	$(BIN)/python scripts/write_api.py --check

fmt: $(VENV)/.tests ## Format everything
	cargo fmt --all
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

drill: $(HUB) $(VENV)/.tests tools ## Run the long forms of the drills
	MERCURE_DRILL=long $(BIN)/pytest tests/python/drills --timeout 1800
	MERCURE_DRILL=long cargo test --locked --release --package mercure-hub --test crash --test cluster --test replay --test operations --test limits --test upgrade -- --nocapture

bench: tools ## Measure the hub beside others, every engine (EVENTS=1000000), and parts of the hub
	cargo build --locked --release --package mercure-bench --package mercure-hub
	target/release/compare --json target/compare.json --plot target/compare.svg
	target/release/compare engine
	target/release/compare fleet
	cargo bench --locked --package mercure-protocol --bench protocol
	cargo bench --locked --package mercure-hub --bench tokens
	cargo bench --locked --package mercure-transports --bench transports

soak: tools ## Run a hub under load and look whether it grows (SECONDS=3600)
	MERCURE_SOAK=$(or $(SECONDS),3600) cargo test --locked --release --package mercure-hub --test soak -- --nocapture

screenshots: $(HUB) $(VENV)/.tests ## Draw the debugger for the documentation
	$(BIN)/pytest tests/python/screenshots.py

fuzz: ## Run each fuzz target (SECONDS_EACH=600)
	scripts/fuzz

docs: $(VENV)/.tests ## Write the generated pages of the documentation
	$(BIN)/python scripts/write_api.py
	MERCURE_WRITE_DOCS=1 cargo test --locked --quiet --package mercure-hub --test reference

test-quickstart: $(TEST_HUB) $(VENV)/.build ## Follow the quick start from a wheel, in an empty folder
	rm -rf target/wheels
	$(BIN)/maturin build --profile dev --locked --out target/wheels
	scripts/stranger target/wheels/*.whl

test-package: $(TEST_HUB) ## Pack the hub for Debian (make package also tries the package)
	scripts/debian-package $(TEST_HUB) target/debian
	dpkg-deb --info target/debian/mercure-hub_*.deb >/dev/null

static: ## Build a hub that needs no library of the system (musl-gcc, rustup target add x86_64-unknown-linux-musl)
	cargo build --locked --release --package mercure-hub --target x86_64-unknown-linux-musl

package: static ## Pack the static hub for Debian into dist/, and try it in a bare Debian (root, debootstrap)
	scripts/debian-package target/x86_64-unknown-linux-musl/release/mercure-hub dist
	scripts/debian-check dist/mercure-hub_*.deb

wheel: $(VENV)/.build ## Build the wheel into dist/
	rm -rf dist
	$(BIN)/maturin build --release --locked --out dist

clean: ## Remove everything that was built
	rm -rf target $(VENV) dist

$(HUB): $(RUST)
	cargo build --locked --release --package mercure-hub
	@touch $@

$(TEST_HUB): $(RUST)
	cargo build --locked --quiet --package mercure-hub
	@touch $@

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The package is used from its source folder; the binary is the one that cargo has built.
$(VENV)/.installed: $(VENV)/.created pyproject.toml
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet flask pyjwt urllib3 gunicorn
	@echo "$(abspath python)" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/flask_mercure_sse.pth"
	@touch $@

# The package that this one replaces, out of the way of ours.
$(VENV)/peers: $(VENV)/.installed
	$(BIN)/pip install --quiet --no-deps --upgrade --target $@ flask-mercure-sse==0.4.1 requests certifi charset-normalizer idna python-dotenv gevent greenlet zope.event zope.interface
	@touch $@

# The oldest releases of what the package is used with, in front of the newest ones.
$(VENV)/oldest: $(VENV)/.installed tests/python/oldest.txt
	$(BIN)/pip install --quiet --upgrade --target $@ --requirement tests/python/oldest.txt
	@touch $@

tests/clients/node_modules: tests/clients/package-lock.json | tools
	@! command -v npm >/dev/null || npm ci --prefix tests/clients --silent --no-audit --no-fund
	@mkdir -p $@ && touch $@

$(VENV)/.build: $(VENV)/.tests
	$(BIN)/pip install --quiet --group build
	@touch $@

$(VENV)/.tests: $(VENV)/.installed
	$(BIN)/pip install --quiet --group test --group lint
	@touch $@
