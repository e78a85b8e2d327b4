# Two commands matter: `make demo` shows Tahini at work, `make test` is everything CI runs.

TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release/tahini
PYTHON := .cache/venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help build demo test check bench hosting rest soak clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build the node, optimised: target/release/tahini
	cargo build --release --locked --package tahini-node

# TAHINI=PATH runs a node that is already built.
demo: $(if $(TAHINI),,build) ## Run the example integrations; ONCE=1 ends instead of staying up, DOCKER=1 runs containers
	@tests/rig/prepare.sh venv
	@$(if $(DOCKER),,$(PYTHON) demo/golden.py --tahini $(or $(TAHINI),$(RELEASE)))
	@$(PYTHON) demo/demo.py --tahini $(or $(TAHINI),$(RELEASE)) $(if $(ONCE),--once) $(if $(DOCKER),--docker)

test: ## Everything CI runs; installs and starts what it needs
	@python3 tests/run.py test $(STEPS)

check: ## The first minute of it: format, shape, lints, unit tests
	@python3 tests/run.py check $(STEPS)

bench: build ## Measure, and write docs/performance.md
	@tests/rig/prepare.sh venv
	@missed=0; for bench in "run.py --tahini $(RELEASE)" store.py "start.py --tahini $(RELEASE)" "letters.py --tahini $(RELEASE)" "dtl.py --tahini $(RELEASE)" "joins.py --tahini $(RELEASE)" "merge.py --tahini $(RELEASE)"; do \
	  $(PYTHON) benches/$$bench || missed=1; done; exit $$missed

hosting: build ## Measure hosted microservices beside a real engine (root), into docs/performance.md
	@tests/rig/prepare.sh engine
	@tests/rig/with-engine.sh python3 benches/services.py --tahini $(RELEASE)

rest: build ## Measure collecting over REST beside a bare HTTP client, into docs/performance.md
	@python3 benches/rest.py --tahini $(RELEASE)

soak: build ## Work on a node and kill it again and again, DURATION=600 seconds; PASS or what was found
	@python3 tests/soak.py --tahini $(RELEASE) --seconds $(or $(DURATION),600) $(if $(SEED),--seed $(SEED))

clean: ## Remove what was built and fetched into the checkout
	cargo clean
	rm -rf .cache tests/browser/node_modules
