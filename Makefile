# All that CI runs, by name. `make help` lists the targets.
SHELL       := /bin/bash -euo pipefail
.DEFAULT_GOAL := help

VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BIN         := bin/countersign
CACHE       ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/countersign
GOLANGCI_VERSION := v2.15.0
GOLANGCI    := $(CACHE)/tools/golangci-lint-$(GOLANGCI_VERSION)
FUZZTIME    ?= 10s
# Without gRPC's pages of traces nothing needs html/template, which keeps the
# linker from leaving out what nobody calls: a quarter of the binary.
# What only talks to the API server and to clouds, or reads what is written once, is
# not inlined: 2.5 MB, and nobody waits for it.
SMALL       := k8s.io sigs.k8s.io github.com/go-openapi github.com/json-iterator github.com/google github.com/Azure github.com/AzureAD github.com/golang-jwt \
               github.com/aws golang.org/x/oauth2 github.com/spf13 go.yaml.in go.etcd.io maragu.dev $(addprefix github.com/countersign-dev/countersign/internal/,watch cluster ratify)
BUILDFLAGS  := -trimpath -tags=grpcnotrace $(SMALL:%=-gcflags=%/...=-l)
# What make e2e runs, whole: make test stays under five minutes without it.
CLUSTER     := bench|decisions|e2e|image|install|memory|shared|signers|watch
# Functions begin at 16 bytes, as arm64's do, instead of 32: 0.4 MB.
LDFLAGS     := -s -w -funcalign=16 -X main.version=$(VERSION)

export GOTOOLCHAIN := local

.PHONY: help run test lint build image bench e2e memory tools mutants generate fuzz clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## see it happen: a registry, the provider, Gatekeeper's engine, pods (ONCE=1 exits)
	@echo "building; the first time takes some minutes"
	@$(MAKE) --no-print-directory build
	@cd test && COUNTERSIGN=$(CURDIR)/$(BIN) ONCE=$(ONCE) CGO_ENABLED=0 go run -trimpath ./demo

test: ## see it proved: every test, with the race detector (make lint vets)
	go test -race -vet=off -short ./...
	cd test && COUNTERSIGN_RACE=1 go test -race -vet=off -short $$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | grep -vE '/($(CLUSTER))$$')

lint: $(GOLANGCI) ## go vet and golangci-lint, for the product and for test/
	go vet ./...
	$(GOLANGCI) run --allow-parallel-runners ./...
	cd test && go vet ./... && $(GOLANGCI) run --allow-parallel-runners --config ../.golangci.yml ./...

build: ## build bin/countersign, static and stripped
	CGO_ENABLED=0 go build $(BUILDFLAGS) -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/provider

image: ## make dist/countersign.tar, an OCI image for amd64 and arm64, without a daemon
	cd test && go run ./image -source .. -out ../dist/countersign.tar -version $(VERSION) -flags '$(BUILDFLAGS)'

bench: build ## measure the real binary beside an echo provider, in 4 minutes (BENCH=-short, BENCH=-json)
	cd test && COUNTERSIGN=$(CURDIR)/$(BIN) go run ./bench $(BENCH)

e2e: tools ## a real API server, Gatekeeper, Cosign and the chart; the engines of Gatekeeper 3.23 and 3.20
	go test -race -count=1 -run 'TestContract|TestL39' ./internal/verifier/... ./cmd/provider
	cd test && go test -race -count=1 -p 1 -timeout 30m -v ./bench ./decisions ./shared ./signers ./e2e ./watch ./install
	cd test && go test -count=1 -v ./memory # the race detector takes several times the memory
	cd test && go test -count=1 -v ./image # which compresses for minutes under the race detector
	cd test && go test -modfile=gatekeeper320.mod -tags gatekeeper320 -count=1 -v ./library ./azurepolicy

memory: ## the binary's memory under hostile registries, in the long form: 1,000 pods of each kind, 20 minutes
	cd test && COUNTERSIGN_LONG=1 go test -count=1 -timeout 60m -v ./memory

tools: ## build what make e2e runs: etcd, Kubernetes, Gatekeeper, Helm, Cosign (kept in the cache)
	cd test && go run ./tools/build

mutants: ## break each line of test/mutants/mutants.txt, and see its test fail (MUTANTS='-share 1/4', '-only ID')
	cd test && go run ./mutants $(MUTANTS)

generate: ## make generated files anew
	go generate ./...
	cd test && go generate ./...

fuzz: ## run every fuzz target for FUZZTIME
	@for package in $$(go list ./...); do \
	  for target in $$(go test -list='^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "== $$package $$target"; \
	    go test -run='^$$' -fuzz="^$$target$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=10x $$package; \
	  done; \
	done

clean: ## remove what was built here
	rm -rf bin dist

$(GOLANGCI):
	@mkdir -p $(@D)
	GOBIN=$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(@D)/golangci-lint $@
