# All commands of this repository: `make` lists them. Needs bash and a Python from 3.10 to 3.12, nothing else.
# Settings go on the command line, in the environment or in youtu.toml: make serve MODEL=... YOUTU_PORT=9000
# (docs/settings.md names them all).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.ONESHELL:

# The first of these that Triton's wheel has a stub for and that can make a virtual environment.
PYTHONS := python3.11 python3.12 python3.10 python3
PYTHON ?= $(shell for name in $(PYTHONS); do $$name -c \
	'import ensurepip, sys, venv; (3, 10) <= sys.version_info[:2] <= (3, 12) or sys.exit(1); print(sys.executable)' \
	2>/dev/null && break; done)

MODEL ?=
ifneq ($(MODEL),)
export YOUTU_MODEL := $(MODEL)
endif
ifneq ($(ENGINE),)
export YOUTU_ENGINE := $(ENGINE)
endif
ifneq ($(DEVICE),)
export YOUTU_DEVICE := $(DEVICE)
endif
ifneq ($(PROFILE),)
export YOUTU_PROFILE := $(PROFILE)
endif
ARGS ?=

PIP_INSTALL := -m pip install --disable-pip-version-check --no-deps --require-hashes --only-binary :all:

# $(call environment,FOLDER,LOCK): a virtual environment that holds what the lock pins. Its stamp is written last, so
# that an interrupted install is taken up again by the next call. The .pth file makes client/ importable in it; its path is
# relative, so that the name of the checkout's folder does not matter.
define environment
	if [ -z "$(PYTHON)" ]; then
		echo "No usable Python found: install Python 3.11 with its venv module" \
			"(Debian: apt-get install python3.11 python3.11-venv), or name one with PYTHON=..." >&2
		exit 1
	fi
	echo "Installing $(2) into $(1), with $(PYTHON)"
	if ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then rm -rf $(1); "$(PYTHON)" -m venv $(1); fi
	$(1)/bin/python $(PIP_INSTALL) -r $(2) 2> >(grep -v '^WARNING: ' >&2) \
		| sed -nuE 's/^ *Downloading (.* MB\))/  \1/p; s/^Installing collected packages.*/  unpacking/p'
	echo ../../../../client > "$$(echo $(1)/lib/python3.*/site-packages)/youtu-client.pth"
endef

.PHONY: help
help:  ## list these targets
	@sed -nE 's/^([a-z0-9-]+):[^#]*##  ?(.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

.PHONY: serve
serve: .venv/.stamp $(if $(filter cuda,$(YOUTU_DEVICE)),.venv-cuda/.stamp)  ## start Triton and the web frontend [MODEL=demo | smollm2 | hub name | folder | file.gguf] [DEVICE=cuda or ENGINE=tensorrt_llm]
	@exec .venv/bin/python -m serve

.PHONY: upgrade
upgrade: .venv/.stamp  ## another MODEL or version takes the place of the server that runs, with no request lost [MODEL=...]
	@exec .venv/bin/python -m serve --upgrade

.PHONY: engine
engine: .venv/.stamp  ## make MODEL's int8 engine without serving it [ENGINE=tensorrt_llm PROFILE=8gb|24gb|int8-kv on a GPU]
	@case "$${YOUTU_ENGINE:-youtu_engine}" in
	youtu_engine|llama_cpp)
		if [ -n "$(PROFILE)" ]; then
			echo "PROFILE=$(PROFILE) is for the GPU engine: give ENGINE=tensorrt_llm too" >&2
			exit 1
		fi
		exec .venv/bin/python -m build "$${YOUTU_MODEL:-demo}" --data-dir "$${YOUTU_DATA_DIR:-var}"
		;;
	tensorrt_llm) ;;
	*) echo "unknown ENGINE=$$YOUTU_ENGINE: expected youtu_engine or tensorrt_llm" >&2; exit 1 ;;
	esac
	.venv/bin/python -m build.tensorrt_llm "$${YOUTU_MODEL:-demo}" --profile "$${YOUTU_PROFILE:-8gb}" \
		--data-dir "$${YOUTU_DATA_DIR:-var}"
	exec .venv/bin/python -m serve.fill

.PHONY: cuda
cuda: .venv/.stamp .venv-cuda/.stamp  ## compile llama.cpp for an NVIDIA card, as DEVICE=cuda does [ARCHITECTURE=8.9]
	@exec .venv/bin/python -m build.cuda --data-dir "$${YOUTU_DATA_DIR:-var}" --architecture "$(ARCHITECTURE)"

.PHONY: verify-cuda
verify-cuda: cuda  ## check the compiled llama.cpp on the card that is there, and measure it; writes verify-cuda.json
	@[ -e "$${YOUTU_DATA_DIR:-var}/cuda-bundle/reference.npz" ] \
		|| .venv/bin/python -m serve.verify_cuda.bundle "$${YOUTU_DATA_DIR:-var}/cuda-bundle"
	exec .venv/bin/python -m serve.verify_cuda --library "$${YOUTU_DATA_DIR:-var}/cuda/current" \
		--bundle "$${YOUTU_DATA_DIR:-var}/cuda-bundle"

.PHONY: verify-gpu
verify-gpu: .venv/.stamp  ## check on a GPU, in NVIDIA's container, all that could not be checked without one [MODEL] [PROFILE]
	@exec .venv/bin/python -m serve.verify_gpu $(ARGS)

.PHONY: check-model
check-model: .venv/.stamp  ## does the engine compute MODEL rightly? Tokenizer, texts, questions, template; one line to report back
	@exec .venv/bin/python -m build.check_model "$${YOUTU_MODEL:-demo}" --data-dir "$${YOUTU_DATA_DIR:-var}" $(ARGS)

.PHONY: install
install: .venv/.stamp  ## make .venv, which serving runs in

.PHONY: test
test: .venv/.stamp .venv-test/.stamp chromium test-programs  ## install what the tests need and run them all [ARGS="tests/build -x"]
	@exec .venv-test/bin/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

QUICK := tests/client tests/model_repository tests/frontend/openai tests/frontend/responses tests/frontend/anthropic
SLOW_OF_QUICK := tests/client/cli

.PHONY: test-quick
test-quick: .venv/.stamp .venv-test/.stamp  ## the tests of contract, client, models and API on fakes: under two minutes [ARGS]
	@exec .venv-test/bin/python -m pytest --numprocesses 2 --dist loadfile $(QUICK) \
		$(addprefix --ignore=,$(SLOW_OF_QUICK)) $(ARGS)

.PHONY: test-smollm2
test-smollm2: .venv/.stamp .venv-test/.stamp .venv-quality/.stamp  ## tests with a real small model: turns, stops, seeds, schemas, lm-eval
	@exec .venv-test/bin/python -m pytest tests/smollm2 $(ARGS)

.PHONY: test-frameworks
test-frameworks: .venv/.stamp .venv-frameworks/.stamp .venv-frameworks-openai-2/.stamp  ## agent frameworks drive a server: tools, typed answers [MODEL=smollm2 or URL=http://...]
	@export FRAMEWORKS_URL="$(URL)"
	run() { "$$1/bin/python" -m pytest --confcutdir tests/frameworks "$${@:2}" $(ARGS); }
	run .venv-frameworks $(NEWEST_SDK)
	run .venv-frameworks-openai-2 $(filter-out $(NEWEST_SDK),$(wildcard tests/frameworks/test_*.py))

NEWEST_SDK := $(patsubst %,tests/frameworks/test_%.py,openai_sdk openai_agents langchain pydantic_ai ai_sdk)

.PHONY: check
check: .venv-test/.stamp  ## spelling, lint, formatting and types
	@.venv-test/bin/codespell
	@.venv-test/bin/ruff check .
	@.venv-test/bin/ruff format --check .
	@.venv-test/bin/oxlint --quiet --deny-warnings --report-unused-disable-directives frontend/static tests/frontend/js
	@.venv-test/bin/mypy $(ROOMS)
	@for model in model_repository/*/1/model.py; do .venv-test/bin/mypy $${model%/model.py}; done

ROOMS := $(patsubst %/__init__.py,%,$(wildcard benchmarks/__init__.py build/__init__.py \
	client/*/__init__.py frontend/__init__.py serve/__init__.py)) tests

.PHONY: image
image:  ## build the CPU image, youtu:cpu, with docker (docs/docker.md) [ARGS="--build-arg BASE=..."]
	@docker build -f docker/cpu.Dockerfile -t youtu:cpu $(ARGS) .

.PHONY: image-check
image-check:  ## build the CPU image and try it: its inside, its start by compose, an answer, its end
	@exec docker/check.sh

.PHONY: demo
demo: .venv-test/.stamp  ## train the demonstration checkpoint again, into build/demo/checkpoint (minutes)
	@exec .venv-test/bin/python -m build.demo.train $(ARGS)

.PHONY: random-2b
random-2b: .venv/.stamp  ## write a checkpoint of random weights in the true 2B shape to var/random-2b (4 GB)
	@exec .venv/bin/python -m build.random_checkpoint var/random-2b $(ARGS)

KEYS_FILE ?= $(or $(YOUTU_KEYS_FILE),keys.txt)

.PHONY: key
key: .venv/.stamp  ## make an API key, shown once; its hash goes to KEYS_FILE [NAME=shop KEYS_FILE=keys.txt]
	@exec .venv/bin/python -m frontend.keys "$(KEYS_FILE)" "$(or $(NAME),default)"

.PHONY: load
load: .venv/.stamp .venv-bench/.stamp  ## load on one endpoint, step by step up to the knee [MODEL=... or ARGS="--url ..."]
	@exec .venv-bench/bin/python -m benchmarks.load $(if $(findstring --url,$(ARGS)),,--model "$(or $(MODEL),demo)") $(ARGS)

.PHONY: table
table: .venv/.stamp .venv-bench/.stamp  ## the comparison table of four models [WEIGHTS=random or published, ARGS=...]
	@exec .venv-bench/bin/python -m benchmarks.table --weights $(or $(WEIGHTS),random) $(ARGS)

.PHONY: layers
layers: .venv/.stamp .venv-bench/.stamp  ## what Triton, youtu_llm and the frontend add to the engine alone [MODEL, ARGS]
	@exec .venv-bench/bin/python -m benchmarks.layers --model "$(or $(MODEL),demo)" $(ARGS)

.PHONY: peers
peers: .venv/.stamp .venv-peers/.stamp  ## both runtimes beside llama.cpp's own server, OpenVINO GenAI, transformers [ARGS=...]
	@exec .venv-peers/bin/python -m benchmarks.peers $(ARGS)

.PHONY: runtime
runtime: .venv/.stamp .venv-bench/.stamp  ## both runtimes: shared prompts, gaps, steps, memory, guesses [ARGS="--minutes 60"]
	@exec .venv-bench/bin/python -m benchmarks.runtime $(ARGS)

.PHONY: promises
promises: .venv/.stamp .venv-bench/.stamp  ## milliseconds: slots of callers who left, probes beside full slots, starts [ARGS]
	@exec .venv-bench/bin/python -m benchmarks.promises $(ARGS)

.PHONY: documents
documents: .venv-bench/.stamp  ## passages found for 75 questions in two languages; time and memory to read 1,000 pages
	@exec .venv-bench/bin/python -m benchmarks.documents

.PHONY: affinity
affinity: .venv/.stamp .venv-bench/.stamp  ## what it brings that conversations return to their server, three on this machine [ARGS]
	@exec .venv-bench/bin/python -m benchmarks.affinity $(ARGS)

.PHONY: scaling
scaling: .venv/.stamp .venv-test/.stamp  ## answers per second with 1, 2 and 4 servers (fakes) behind one frontend, and its limit [ARGS]
	@exec .venv-test/bin/python -m benchmarks.scaling $(ARGS)

.PHONY: hour
hour: .venv/.stamp .venv-bench/.stamp  ## play an hour of load in minutes: ramp, burst, outage, recovery; draws it [ARGS="--minutes 3"]
	@exec .venv-bench/bin/python -m benchmarks.hour $(ARGS)

.PHONY: sizing
sizing: .venv-bench/.stamp  ## servers, cost and first bottleneck for so many users, on paper [ARGS="--users 1000000 --answer 250"]
	@exec .venv-bench/bin/python -m benchmarks.sizing $(ARGS)

.PHONY: quality
quality: .venv/.stamp .venv-bench/.stamp  ## Chinese, code and maths through the served API, marked [MODEL=... or ARGS="--url ..."]
	@exec .venv-bench/bin/python -m benchmarks.quality.run $(if $(findstring --url,$(ARGS)),,--model "$(or $(MODEL),demo)") $(ARGS)

.PHONY: quality-lm-eval
quality-lm-eval: .venv-quality/.stamp  ## C-Eval, GSM8K, HumanEval … by lm-eval, against a server that runs [ARGS="--url ..."]
	@exec .venv-quality/bin/python -m benchmarks.quality.published $(ARGS)

.PHONY: settings-doc
settings-doc: .venv-test/.stamp  ## write docs/settings.md from serve/settings.py
	@.venv-test/bin/python -m serve.settings_doc > docs/settings.md

.PHONY: contract
contract: .venv-test/.stamp  ## write the tensors of config.pbtxt and the tables of docs/contract.md from their rows
	@.venv-test/bin/python -m youtu_contract.documents model_repository docs

.PHONY: picture
picture: .venv/.stamp .venv-test/.stamp chromium chinese-fonts  ## photograph the page for the READMEs, into docs/
	@exec .venv-test/bin/python -m tests.frontend.page.picture docs

.PHONY: lock
lock:  ## resolve requirements/*.lock anew from pyproject.toml [ARGS="--upgrade"]
	@[ -x .venv-lock/bin/python ] || $(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@.venv-lock/bin/python requirements/lock.py $(ARGS)

.PHONY: licences
licences:  ## write the tables of docs/licences.md: the licence of every package that requirements/*.lock pin
	@[ -x .venv-lock/bin/python ] || $(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check pip==26.3
	@.venv-lock/bin/python requirements/licences.py

.PHONY: clean
clean:  ## remove the environments and var/ (engines and downloads too)
	rm -rf .venv .venv-* var

# Chromium drives the browser tests.
.PHONY: chromium
chromium:
	@if command -v chromium >/dev/null; then exit; fi
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "The browser tests need Chromium: install it (Debian: sudo apt-get install chromium)" >&2
		exit 1
	fi
	echo "Installing chromium"
	apt-get -qq update
	DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends chromium >/dev/null

# Real ones for the tests of docs/servers.md and docs/runbook.md: haproxy, redis-server, promtool (in prometheus).
.PHONY: test-programs
test-programs:
	@missing=()
	for program in haproxy redis-server promtool; do
		PATH=$$PATH:/usr/sbin command -v $$program >/dev/null || missing+=($${program/promtool/prometheus})
	done
	if [ $${#missing[@]} = 0 ]; then exit; fi
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "The tests need more programs: install them (Debian: sudo apt-get install $${missing[*]})" >&2
		exit 1
	fi
	echo "Installing $${missing[*]}"
	apt-get -qq update
	DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "$${missing[@]}" >/dev/null

# The pictures show Chinese; the tests do without.
.PHONY: chinese-fonts
chinese-fonts:
	@if [ -n "$$(fc-list :lang=zh 2>/dev/null)" ]; then exit; fi
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "The pictures need Chinese fonts: install some (Debian: sudo apt-get install fonts-noto-cjk)" >&2
		exit 1
	fi
	echo "Installing fonts-noto-cjk"
	apt-get -qq update
	DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends fonts-noto-cjk >/dev/null

.venv/.stamp: requirements/serve.lock
	@$(call environment,.venv,$<)
	touch $@

.venv-bench/.stamp: requirements/bench.lock requirements/openvino.lock
	@$(call environment,.venv-bench,$<)
	.venv-bench/bin/python $(PIP_INSTALL) --quiet -r requirements/openvino.lock
	touch $@

.venv-cuda/.stamp: requirements/cuda.lock
	@$(call environment,.venv-cuda,$<)
	touch $@

.venv-frameworks/.stamp: requirements/frameworks.lock
	@$(call environment,.venv-frameworks,$<)
	touch $@

.venv-frameworks-openai-2/.stamp: requirements/frameworks-openai-2.lock
	@$(call environment,.venv-frameworks-openai-2,$<)
	touch $@

.venv-quality/.stamp: requirements/quality.lock
	@$(call environment,.venv-quality,$<)
	touch $@

# $(call torch,FOLDER): PyTorch, CPU build if pip knows a place that has it
define torch
	echo "  torch, CPU build if pip knows a place that has it"
	$(1)/bin/python $(PIP_INSTALL) -qqq -r requirements/torch-cpu.lock 2>/dev/null \
		|| $(1)/bin/python $(PIP_INSTALL) -q -r requirements/torch-cuda.lock
endef

.venv-peers/.stamp: requirements/peers.lock requirements/torch-cpu.lock requirements/torch-cuda.lock
	@$(call environment,.venv-peers,$<)
	$(call torch,.venv-peers)
	touch $@

.venv-test/.stamp: requirements/test.lock requirements/torch-cpu.lock requirements/torch-cuda.lock
	@$(call environment,.venv-test,$<)
	$(call torch,.venv-test)
	touch $@
