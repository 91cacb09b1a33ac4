# Few words: anything longer is a program in buildscripts.
SHELL := /bin/bash
.DEFAULT_GOAL := help
GO ?= go
TOOL = $(GO) tool -modfile=buildscripts/tools/go.mod
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS = -s -w -X main.version=$(VERSION)

help: ## Say what each word does
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Run the whole product against a simulated plant and ERP (DEMO_FOR=90s ends by itself)
	@mkdir -p .bin
	@$(GO) build -o .bin/ ./cmd/plantagent ./cmd/synchub ./cmd/demo
	@exec .bin/demo

build: ## Build plantagent and synchub for windows/amd64, linux/amd64 and linux/arm64 into dist/
	@for t in windows/amd64 linux/amd64 linux/arm64; do \
	  os=$${t%/*} arch=$${t#*/}; echo "building $$t"; mkdir -p dist/$$os-$$arch; \
	  CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o dist/$$os-$$arch/ ./cmd/plantagent ./cmd/synchub || exit 1; \
	done; ls -l dist/*

setup: ## Install the real servers that the tests need (apt and npm; says what it installs)
	@buildscripts/setup.sh

test: setup ## Install what the tests need and run them all
	$(GO) test -timeout 40m ./...

check: ## Format, vet, static analysis, import rule, generated code fresh, contract unbroken
	@buildscripts/check.sh

fuzz: ## Run every fuzz target for T (default 30s) and list them; FUZZ=name picks some
	@buildscripts/fuzz.sh $(or $(T),30s) '$(FUZZ)'

generate: ## Generate the code of the contract
	$(TOOL) buf generate proto --template proto/buf.gen.yaml -o proto

bench: setup ## Measure: tables, then one "ratio NAME VALUE GOAL" line for each goal (higher is better)
	@mkdir -p .bin
	@$(GO) build -o .bin/bench ./buildscripts/bench
	@.bin/bench

soak: ## Kill the buffer 1,000 times, drain 10 GB, post LINEKEEPER_POSTINGS=n facts to S/4 and LINEKEEPER_TRYTON_POSTINGS=n to Tryton, run SEEDS=n seeds of the simulation; logs of failing ones are kept in .bin/soak
	@mkdir -p .bin
	@LINEKEEPER_BACKLOG=10737418240 LINEKEEPER_CRASHES=1000 $(GO) test -count=1 -timeout 90m -run 'TestBacklogDrains|TestKilledProcess' ./agent/buffer
	@LINEKEEPER_POSTINGS=$(or $(LINEKEEPER_POSTINGS),100000) LINEKEEPER_TRYTON_POSTINGS=$(or $(LINEKEEPER_TRYTON_POSTINGS),5000) \
	  $(GO) test -count=1 -v -timeout 4h -run 'TestManyPostings|TestHubThatPostsAgainWithoutLooking' ./cmd/e2e
	@$(GO) build -o .bin/soak-run ./cmd/sim/soak
	@.bin/soak-run -seeds $(or $(SEEDS),2000)

.PHONY: help demo build setup test check generate bench soak fuzz
