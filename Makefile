# Weir: the front door. CMake, Ninja and tools/ do the work.
SHELL := /bin/bash
STAGE := tools/stage
PYTEST := /usr/bin/python3 -m pytest -q -p no:cacheprovider
FUZZ_SECONDS ?= 10
BUILD := build

.PHONY: help run test test-quick test-sanitizers test-kubernetes build check bench fuzz guests install clean deps-build deps-test

help:
	@echo "make run        install what is missing, build, and show a gateway at work (ONCE=1: and end)"
	@echo "make test       everything: release unit and e2e, unit under ASan and UBSan, fuzz targets briefly, guests"
	@echo "make test-quick unit and the fast e2e tests, in under 3 minutes"
	@echo "make test-sanitizers  all e2e under ASan and TSan"
	@echo "make test-kubernetes  against a real kube-apiserver (built once from Go modules: 4 to 8 minutes) and etcd"
	@echo "make build      build/weir      make check   format, tidy, include table, warnings as errors"
	@echo "make bench      scorecard beside nginx, HAProxy and Envoy      make fuzz  fuzz targets, FUZZ_SECONDS each"
	@echo "make guests     every example filter      make install   PREFIX=/usr/local      make clean"

deps-build:
	@tools/deps build guest_c
deps-test:
	@tools/deps build guest_c guests test check

# The program, and the C guest that the quickstart needs.
build: deps-build
	@$(STAGE) "engine" engine/build.sh >/dev/null
	@$(STAGE) "build" tools/build release weir

run: build
	@$(STAGE) "quickstart filter" tools/guests --c-only $(BUILD)/guests
	@tools/quickstart $(if $(ONCE),--once)

guests: build
	@$(STAGE) "guests" tools/guests $(BUILD)/guests

test: deps-test
	@tools/test all

test-kubernetes: deps-test
	@tools/deps kubernetes
	@tools/test kubernetes

test-quick: deps-test
	@tools/test quick

test-sanitizers: deps-test
	@tools/test sanitizers

fuzz: deps-test
	@tools/test fuzz

check: deps-test
	@$(STAGE) "build" tools/build release
	@tools/check --tidy

bench: build
	@tools/deps bench
	@bench/run $(BENCH_ARGS)

install: build
	cmake --install $(BUILD) --prefix $(or $(PREFIX),/usr/local)

clean:
	rm -rf build build-dev build-asan build-tsan build-fuzz
