# encoderd. "make run" and "make test" work on a fresh Debian or Ubuntu machine.

GO        ?= go
BUILD     := build
CACHE     := .cache
BIN       := $(CURDIR)/$(CACHE)/bin
VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS   := -s -w -X main.version=$(VERSION)
LINT      := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
LINT_PIN  := v2.15.0
STATE     ?= $(CACHE)/run

MODULE    := encoderd.example
empty     :=
space     := $(empty) $(empty)

export CGO_ENABLED := 0

.PHONY: help run build test rest check unit live lint fuzz bench box cross clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

run: ## build and run on the software board; page on http://localhost:8080
	@tools/install run
	@$(MAKE) --no-print-directory build
	@mkdir -p $(STATE)
	@echo "page: http://localhost:8080   picture: rtsp://localhost:8554/main   stop: Ctrl-C"
	$(BUILD)/encoderd run --board sim --state $(STATE)

build: ## build/encoderd for this machine
	@mkdir -p $(BUILD)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/encoderd ./cmd/encoderd

# The virtual board takes longest, and leaves more than half of two cores idle; so
# does what watches shows in real time. They run beside each other: the shows go
# before the guests, and what only computes goes behind both.
COMPUTE := $(shell chrt --idle 0 true 2> /dev/null && echo chrt --idle 0 || echo nice -n 19)
MAKE1   := $(MAKE) --no-print-directory

test: ## everything: checks, cross builds, unit and end-to-end tests, the virtual board; BESIDE=no: in turn
	@tools/install test
	@rm -f $(BUILD)/times $(BUILD)/unsteady
	@tools/timed image buildroot/virt/build.sh
	@tools/timed unit $(MAKE1) unit
	@tools/timed rest tools/beside box 'tools/timed box nice -n 10 $(MAKE1) box' '$(MAKE1) rest'
	@tools/timed --sum
	@cat $(BUILD)/unsteady 2> /dev/null || echo "no test needed a second try"

rest: # of test, beside the virtual board
	@tools/beside "lint and cross" '$(COMPUTE) $(MAKE1) lint cross' 'tools/timed live $(MAKE1) live'
	@tools/timed fuzz nice -n 19 $(MAKE1) fuzz

check: lint unit live ## the fast part: vet, lint, unit and end-to-end tests

# Packages whose tests watch a show in real time, with other programs at the far
# end: they run one after the other, for they would take a busy neighbour for a
# slow box, and by tools/twice. Those that compute most come first, for then no
# guest runs the daemon, whose watchdog bites. All others run side by side.
LIVE := daemon hw/sim/picture cmd/encoderd cmd/example-webrtc hw/alsa hw/external hw/external/rpicam hw/pion/encode hw/sim \
	stream/dash stream/hls stream/httplive stream/mjpeg stream/rtmp stream/rtsp stream/webrtc tools/bench webui

unit live: export CGO_ENABLED := 1
unit: ## unit tests, with the race detector; builds those of live, too
	$(GO) test -race -run '^$$' ./... > /dev/null
	$(GO) test -race -timeout 15m $$($(GO) list ./... | grep -vxE '$(MODULE)/($(subst $(space),|,$(strip $(LIVE))))')

live: ## end-to-end tests, with the race detector
	@for p in $(LIVE); do tools/twice $(GO) test -race -timeout 25m ./$$p || exit 1; done

lint: $(BIN)/golangci-lint-$(LINT_PIN) ## go vet and golangci-lint, the virtual board's tests too
	$(GO) vet -tags box,board ./...
	$(BIN)/golangci-lint-$(LINT_PIN) run --timeout 30m --build-tags box,board ./...

$(BIN)/golangci-lint-$(LINT_PIN):
	@echo "building golangci-lint $(LINT_PIN) (once)"
	@mkdir -p $(BIN)
	GOTOOLCHAIN=$$($(GO) env GOVERSION) GOBIN=$(BIN) GOFLAGS= $(GO) install $(LINT)@$(LINT_PIN) # refuses code of a newer Go than its own
	mv $(BIN)/golangci-lint $@

fuzz: ## every fuzz test for FUZZTIME, those of tally and serial control longer
	tools/fuzz $(or $(FUZZTIME),5s) $(or $(FUZZTIME),60s)

cross: ## build and vet for the boards' architectures
	GOARCH=arm64 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/encoderd-arm64 ./cmd/encoderd
	GOARCH=arm GOARM=7 $(GO) build -trimpath -ldflags '$(LDFLAGS) -I /lib/ld-linux-armhf.so.3' -o $(BUILD)/encoderd-armv7 ./cmd/encoderd
	GOARCH=arm64 $(GO) vet -tags board ./...
	GOARCH=arm GOARM=7 $(GO) vet -tags board ./...

box: ## build the virtual board (cached), boot it, test on it
	@tools/install box
	buildroot/virt/test

bench: ## speed beside other programs, as ratios, and bytes copied on every path
	@tools/install bench
	@$(MAKE) --no-print-directory build
	$(GO) run ./tools/bench $(BENCH)

clean: ## remove what was built, not what was downloaded
	rm -rf $(BUILD)
