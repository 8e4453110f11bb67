# make run    build and start the interface: make run ARGS='-m model.gguf'
# make test   everything that must hold
# make check  the quick part of it: format, lints, documentation, licences, architecture
# make bench  speed, against llama.cpp's own tools: prints a table and fails when a target is missed
# make peers  those tools (about ten minutes, once), and the servers of others that tests/peers.rs talks to
# make termbench  the interface against a scripted server (about eight minutes)
# make openai     the official OpenAI client in Python against `tui serve` (seconds, once it is built)
# make results    writes the last figures of the two above into benches/RESULTS.md
# make portable   a folder that runs on any machine of this kind: target/portable (FEATURES=cuda adds a card)
# make clean
#
# Each sets up what it needs: see .ci/setup.

TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO_HOME ?= $(HOME)/.cargo
# For a Rust that the set-up has just installed, and its tools.
export PATH := $(CARGO_HOME)/bin:$(PATH):$(abspath $(TARGET))/tools/bin
VENV := $(TARGET)/bench-venv
MODELS := $(TARGET)/bench-models
FIGURES := $(TARGET)/bench
# Dependencies were made with other lints in mind; ours are errors where a machine checks.
CLIPPY := -- -D warnings
SHAPES := $(MODELS)/tiny-60m.gguf $(MODELS)/half-b.gguf

.NOTPARALLEL:
.PHONY: run test check lint bench peers termbench openai results portable clean release setup-run setup-test setup-bench

run: setup-run release
	@exec $(TARGET)/release/tui $(ARGS)

setup-run setup-test setup-bench: setup-%:
	@.ci/setup $*

release: setup-run
	@.ci/release

# The development profile has no CPU flags, so that make and a plain cargo share one build of llama.cpp.
test: setup-test lint
	cargo test --locked
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	cargo-deny --log-level error check licenses bans sources

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets $(CLIPPY)
	cargo clippy --locked --no-default-features --lib --bins $(CLIPPY)

check: setup-test lint
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	cargo-deny --log-level error check licenses bans sources
	cargo test --locked --test architecture

peers: setup-bench $(VENV)/ready
	@.ci/peers $(TARGET)/peers $(VENV)/bin/python

$(VENV)/ready: benches/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --requirement benches/requirements.txt
	@touch $@

$(MODELS)/%.gguf: benches/make_shape.py models/builtin.gguf $(VENV)/ready
	@mkdir -p $(MODELS)
	$(VENV)/bin/python benches/make_shape.py $@.part --shape $* --tokenizer models/builtin.gguf
	@mv $@.part $@

# Every part runs even when one before it failed; the exit code tells.
bench: setup-bench release peers
	@$(MAKE) --no-print-directory $(SHAPES)
	@mkdir -p $(FIGURES); status=0; \
	$(VENV)/bin/python benches/engine.py --tui $(TARGET)/release/tui --peers $(TARGET)/peers --out $(FIGURES) \
	    $(SHAPES) || status=1; \
	$(VENV)/bin/python benches/start.py --tui $(TARGET)/release/tui --out $(FIGURES) || status=1; \
	$(VENV)/bin/python benches/memory.py --tui $(TARGET)/release/tui --out $(FIGURES) $(SHAPES) || status=1; \
	flags=$$(.ci/cpu-flags); eval "$$flags"; \
	cargo bench --locked --bench interface > $(FIGURES)/interface.txt || status=1; \
	cat $(FIGURES)/interface.txt; \
	{ echo '```text'; cat $(FIGURES)/interface.txt; echo '```'; } > $(FIGURES)/interface.md; \
	cargo bench --locked --bench router > $(FIGURES)/router.md || status=1; \
	cat $(FIGURES)/router.md; \
	exit $$status

termbench: setup-bench release $(VENV)/ready
	@mkdir -p $(FIGURES)
	TERMBENCH_TUI=$(abspath $(TARGET))/release/tui $(VENV)/bin/python benches/termbench/termbench.py \
	    run benches/termbench/profiles/tui.toml --out $(FIGURES)/termbench
	$(VENV)/bin/python benches/termbench/termbench.py report $(FIGURES)/termbench > $(FIGURES)/termbench.md
	@cat $(FIGURES)/termbench.md

openai: setup-bench $(VENV)/openai
	cargo build --locked
	$(VENV)/bin/python tests/openai_client.py $(TARGET)/debug/tui

$(VENV)/openai: tests/requirements-openai.txt $(VENV)/ready
	$(VENV)/bin/pip install --quiet --requirement tests/requirements-openai.txt
	@touch $@

results:
	@python3 benches/results.py $(FIGURES) benches/RESULTS.md

portable: setup-run
	@.ci/portable $(FEATURES)

clean:
	cargo clean
