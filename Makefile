# Every command a person types. `make help` lists them.

.DEFAULT_GOAL := help
SMOKE := target/smoke

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: ## Build, run the smoke suite on the built-in data, print its table
	cargo run -- bench suites/smoke.toml --out $(SMOKE)

test: ## Run all tests (LONGCAST_DATA=folder adds those on real data)
	cargo test

lint: ## Check format and lints
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --no-default-features --lib -- -D warnings

doc: ## Build the documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

bench: ## Run the criterion benches
	cargo bench

bench-pytorch: ## Time training steps and forecasts against PyTorch (PYTORCH=python with torch, or it is installed)
	cargo build --release --example measure
	test -n "$(PYTORCH)" || test -x target/pytorch/bin/python || \
		(python3 -m venv target/pytorch && target/pytorch/bin/pip install -r benches/pytorch/requirements.txt)
	$(or $(PYTORCH),target/pytorch/bin/python) benches/pytorch/compare.py

golden: ## Check the networks against the golden files of their references (GOLDEN=folder)
	cargo run --example check_golden -- $(or $(GOLDEN),tests/golden)

report: pretrained ## Run what is missing of the suites (LONGCAST_DATA=folder), write reports/
	for suite in repeat-drop-last linear-336 linear-336-drop-last long-horizon competitions networks-336 dlinear-seeds networks-96 decoders-96 decoders-96-drop-last gpht-336 intervals short-horizon olinear-tuning; do \
		target/release/longcast bench suites/$$suite.toml > target/$$suite.log || exit 1; done

SETS := ETTh1 ETTh2 ETTm1 ETTm2 Weather Exchange ILI
comma := ,
PRETRAIN = target/release/longcast pretrain --model gpht --preset gpht-small-pretrain --balanced --datasets
pretrained: ## Pretrain the small GPHT on all sets, and without ETTh1 and ETTh2, into pretrained/ (LONGCAST_DATA=folder)
	cargo build --release
	test -d pretrained/gpht-small || $(PRETRAIN) $(subst $() ,$(comma),$(SETS)) --save pretrained/gpht-small
	for set in ETTh1 ETTh2; do \
		test -d pretrained/gpht-small-without-$$set || \
		$(PRETRAIN) $$(echo $(SETS) | tr ' ' '\n' | grep -v "^$$set$$" | paste -sd,) \
			--save pretrained/gpht-small-without-$$set || exit 1; done

light: ## Check that the library alone needs neither polars nor candle nor clap nor axum
	cargo check --no-default-features --lib
	cargo check --no-default-features --features neural --lib
	@if cargo tree --no-default-features --edges normal --prefix none | grep -E '^(polars|candle|clap|axum|hyper|tokio)'; \
		then echo 'the library alone must not need these'; exit 1; fi

smoke: ## Run the smoke suite: its table is the expected one, nothing is run twice, one thread gives the same bits
	rm -rf $(SMOKE)
	cargo run -- bench suites/smoke.toml --out $(SMOKE) > $(SMOKE).log
	diff -u tests/smoke.md $(SMOKE)/smoke.md
	cargo run -- bench suites/smoke.toml --out $(SMOKE) 2>&1 > /dev/null | grep ' 0 recorded'
	RAYON_NUM_THREADS=1 cargo run -- verify $(SMOKE)/records/smoke > $(SMOKE).verified

browser: ## Try the HTML report and the page of `serve` in Chromium, which is installed from Debian's packages where it is missing
	command -v chromium > /dev/null && command -v chromedriver > /dev/null || \
		(apt-get update && apt-get install --yes --no-install-recommends chromium chromium-driver)
	LONGCAST_BROWSER=required cargo test --test browser

slurm: ## Run the smoke suite in parts on a Slurm of one node; installs it where it is missing (Debian, as root)
	cargo build
	tests/slurm.sh

ci: lint test doc light smoke browser slurm ## All that must be green before a change is sent

.PHONY: help run test lint doc bench bench-pytorch golden report pretrained light smoke browser slurm ci
