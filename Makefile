# groupgate. "make help" lists the targets. Go is all that "build" and "demo"
# need; "test" installs what else it wants (deploy/testenv/install.sh).

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
APP     := github.com/groupgate/groupgate/cmd/internal/app

# Pinned, so that a new release cannot turn an old commit red.
GOLANGCI    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.1.4

# What the race detector need not watch: SQLite, which is C and keeps its data
# where the detector does not look (its Go driver is watched), and the hash of
# passwords, which has no goroutines but its own. Watched they take most of the time.
UNWATCHED := golang.org/x/crypto/argon2 golang.org/x/crypto/blake2b modernc.org/libc/... modernc.org/memory modernc.org/sqlite/lib

# How long each fuzz target runs.
FUZZTIME ?= 5s

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help build demo screenshots test tools format vet unit race fuzz bench lint

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## bin/groupgate: static, stripped, reproducible
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X $(APP).Version=$(VERSION)' -o bin/groupgate ./cmd/groupgate
	@echo "bin/groupgate $(VERSION)"

demo: ## try it: provider, application and groupgate in one process
	@$(GO) run ./cmd/demo

screenshots: tools ## take the pictures of README anew, from the demo
	@GROUPGATE_E2E=1 GROUPGATE_SCREENSHOTS=$(CURDIR)/deploy/screenshots $(GO) test -count=1 -run '^TestScreenshots$$' ./cmd/internal/e2e

test: tools format vet unit race fuzz ## everything, with the real components

tools:
	@echo "== what the tests need"
	@deploy/testenv/install.sh

format:
	@echo "== gofmt"
	@unformatted=$$(gofmt -l cmd proxy claims groups config deploy); \
	if [ -n "$$unformatted" ]; then echo "not formatted:"; echo "$$unformatted"; exit 1; fi

vet:
	@echo "== go vet"
	@$(GO) vet ./...

# Whole programs with real peers may not skip here: GROUPGATE_E2E=1. They wait
# more than they work, so three at once suit two processors.
unit:
	@echo "== go test"
	@GROUPGATE_E2E=1 $(GO) test -count=1 -parallel 3 -timeout 12m ./...

# The end-to-end tests start the program as a process of its own; under the
# race detector they would watch only themselves.
race:
	@echo "== go test -race"
	@$(GO) test -race -short -count=1 -timeout 10m $(UNWATCHED:%=-gcflags=%=-race=false) $$($(GO) list ./... | grep -v -e /cmd/internal/e2e -e /deploy/imagetest -e /deploy/kubetest)

fuzz: ## every fuzz target for FUZZTIME
	@echo "== fuzz, $(FUZZTIME) each"
	@GO="$(GO)" deploy/testenv/fuzz.sh $(FUZZTIME)

bench: build ## what a request, a login, a sync and a plan cost
	@GROUPGATE_E2E=$$([ -x /usr/sbin/slapd ] && echo 1) GROUPGATE_BENCH_USERS=100000 $(GO) test -run '^$$' -bench . -benchmem ./claims/... ./config/... ./groups/... ./proxy/...
	@GROUPGATE_E2E=$$([ -x /usr/sbin/slapd ] && echo 1) $(GO) run ./deploy/bench -groupgate bin/groupgate

lint: ## golangci-lint and govulncheck, pinned
	@echo "== golangci-lint"
	@$(GO) run $(GOLANGCI) run ./...
	@echo "== govulncheck"
	@GO="$(GO)" deploy/testenv/vulns.sh $(GOVULNCHECK)
