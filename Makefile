# domsched: `make demo` runs the main job, `make test` passes the tests; both set up all they need.
# `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

# Debian packages that the toolchain, the tests and the benchmarks use.
PACKAGES := gcc libc6-dev make binutils bzip2 xz-utils zstd lz4 lzop gdb clang-14 lld-14 wasi-libc libclang-rt-14-dev-wasm32 dpkg-dev \
	qemu-system-x86 qemu-utils busybox-static cpio time dwarves bpftool dwz libxen-dev chromium fonts-dejavu-core \
	mandoc zsh fish systemd mmdebstrap debuginfod libvirt-daemon-system libvirt-clients libvirt-daemon-driver-qemu prometheus nats-server openssl apache2-utils

.PHONY: experiments fuzz help setup packages build wasm test demo demo-fleet check check-layouts bench kernels kernels-debian deb kernels-suites kernels-all kernels-matrix kernels-own no-file layouts live-1 live-2 soak xen

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | column -t -s $$'\t'

setup: packages node_modules/.package-lock.json wasm build dist/sbom.cdx.json ## install all that the commands need

packages:
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --no-fund --no-audit --loglevel=error
	@touch $@

# Not committed: built here, shipped in the npm package with its licence and what it takes to build it again.
wasm: dist/wasm/libdwarf.wasm ## build libdwarf.wasm from Debian's source of libdwarf

dist/wasm/libdwarf.wasm: extractor/dwarf/build.sh $(wildcard extractor/dwarf/shim/*) extractor/dwarf/config.h | packages
	@mkdir -p .cache
	flock .cache extractor/dwarf/build.sh $(@D) .cache/wasm

build: node_modules/.package-lock.json ## compile to dist/
	@mkdir -p .cache
	@flock .cache npm run -s build

# What the packages are made of: lies in both.
dist/sbom.cdx.json: sbom.ts package.json package-lock.json dist/wasm/libdwarf.wasm | node_modules/.package-lock.json
	node sbom.ts

deb: PACKAGES += lintian
deb: setup ## build Debian's package, with the Node.js that it needs
	node runtime/debian/build.ts
	lintian --allow-root --fail-on error,warning domsched_*.deb

demo: setup ## the main job on real kernels: a layout, a picture, two guests under the daemon, who ran when
	@mkdir -p .cache/suites
	@flock .cache/suites/.lock node kernels/suites.ts --suite bookworm --suite trixie
	@flock .cache/.demo.lock node test/demo.ts

demo-fleet: setup ## two hosts on this machine, each with a daemon and a guest, one nats-server and one policy: a backup waits for the other host's database; one picture of both
	@mkdir -p .cache/suites
	@flock .cache/suites/.lock node kernels/suites.ts --suite bookworm --suite trixie
	@flock .cache/.demo.lock node test/demo-fleet.ts

check: ## types, lint and format
	@npm run -s typecheck
	@npm run -s lint

test: setup check kernels kernels-debian kernels-suites xen ## all tests
	@node kernels/complete.ts
	npm run -s test:unit
	@$(MAKE) --no-print-directory -j2 live-1 live-2
	npm run -s test:readme
	npm run -s check:layouts

# Side by side: a machine with Xen has one vCPU, and the daemon's tests wait for much of their time.
live-1 live-2:
	npm run -s test:live:$(@:live-%=%)

kernels: packages node_modules/.package-lock.json ## build the O(1) guest in all its variants
	@flock kernels/o1 $(MAKE) --no-print-directory -s -C kernels/o1

kernels-debian: node_modules/.package-lock.json ## fetch Debian's cloud kernels and one rt kernel into .cache/kernels
	@mkdir -p .cache/kernels
	@flock .cache/kernels/.lock node kernels/fetch.ts

xen: node_modules/.package-lock.json ## fetch Debian's Xen and what a dom0 needs into .cache/xen
	@mkdir -p .cache/xen
	@flock .cache/xen/.lock node kernels/xen.ts

kernels-suites: packages node_modules/.package-lock.json ## fetch kernels of Debian's other suites into .cache/suites, those that the tests take
	@mkdir -p .cache/suites
	@flock .cache/suites/.lock node kernels/suites.ts

kernels-all: packages node_modules/.package-lock.json ## fetch all of Debian's kernels: 6.1 and 6.12 with debug information (cloud, amd64, rt), and the newest of each series of all suites
	@mkdir -p .cache/kernels .cache/suites
	@flock .cache/kernels/.lock node kernels/fetch.ts --all
	@flock .cache/suites/.lock node kernels/suites.ts --all

kernels-matrix: setup kernels-all ## try each kernel of the suites live (DOMSCHED_MATRIX=6.19,7.3 for some; DOMSCHED_WAYS=splice,state for these alone; DOMSCHED_PREEMPT=full,lazy for these), write docs/kernels.md
	@node kernels/complete.ts
	DOMSCHED_MATRIX=$${DOMSCHED_MATRIX:-} DOMSCHED_CYCLES=$${DOMSCHED_CYCLES:-500} npx ava --timeout=24h --concurrency=1 test/live/suites.test.ts || status=$$?; \
	node kernels/matrix.ts; exit $${status:-0}

kernels-own: PACKAGES += flex bison bc libelf-dev
kernels-own: setup ## build kernels of configurations that Debian has not, and try each live as kernels-matrix does (OWN=small for one of them)
	node kernels/own.ts $(OWN)
	DOMSCHED_SUITES_CACHE=.cache/own node kernels/complete.ts
	DOMSCHED_SUITES_CACHE=.cache/own DOMSCHED_MATRIX= DOMSCHED_CYCLES=$${DOMSCHED_CYCLES:-100} npx ava --timeout=24h --concurrency=1 test/live/suites.test.ts

no-file: setup kernels-all ## boot each kernel of the suites without a layout, and compare what its memory says with its own words (DOMSCHED_MATRIX=6.19,7.3 for some; 4 GB of debug packages once), write the table in docs/no-file.md
	npx ava --timeout=24h --concurrency=1 test/soak/no-file.test.ts || status=$$?; \
	node kernels/no-file.ts; exit $${status:-0}

check-layouts: setup kernels kernels-debian ## hold generated/ against kernels, engines, measurements and configs
	@npm run -s check:layouts

layouts: setup kernels kernels-all ## extract every kernel into generated/ again
	node kernels/regenerate.ts

soak: PACKAGES += faketime
soak: setup kernels kernels-all xen ## 10,000 holds and releases on each live guest and way (DOMSCHED_CYCLES=n), 2,000 kills of the daemon (DOMSCHED_KILLS=n), an hour of everything at once (DOMSCHED_STORM_SECONDS=n), 200 windows of blame for each of ten scenes (WINDOWS=n), 500 for each domain of a Xen (DOMSCHED_XEN_CYCLES=n)
	@node kernels/complete.ts
	DOMSCHED_CYCLES=$${DOMSCHED_CYCLES:-10000} npx ava --timeout=24h --concurrency=1 \
		test/live/debian-surgery.test.ts test/live/o1-surgery.test.ts test/soak/debian-vcpus.test.ts
	DOMSCHED_HOSTILE_ROUNDS=$${DOMSCHED_HOSTILE_ROUNDS:-8000} npx ava --timeout=24h --concurrency=1 test/live/hostile.test.ts
	DOMSCHED_SUITES='bookworm trixie' npx ava --timeout=1h test/package/deb.test.ts
	DOMSCHED_MATRIX= DOMSCHED_CYCLES=$${DOMSCHED_CYCLES:-500} npx ava --timeout=24h --concurrency=1 test/live/suites.test.ts
	DOMSCHED_MATRIX=5.10,6.18,7.3 DOMSCHED_CYCLES=$${DOMSCHED_CYCLES:-10000} npx ava --timeout=24h --concurrency=1 test/live/suites.test.ts
	node kernels/matrix.ts
	DOMSCHED_CYCLES=200 npx ava --timeout=24h --concurrency=1 test/soak/sched-ext.test.ts
	DOMSCHED_KILLS=$${DOMSCHED_KILLS:-2000} npx ava --timeout=24h --match='killed*' test/live/daemon.test.ts
	DOMSCHED_KILLS=$${DOMSCHED_KILLS:-2000} npx ava --timeout=24h --match='all of ours*' test/live/any-host-deaths.test.ts
	DOMSCHED_KILLS=$${DOMSCHED_SPLIT_KILLS:-50} npx ava --timeout=24h test/live/split.test.ts
	DOMSCHED_STORM_SECONDS=$${DOMSCHED_STORM_SECONDS:-3600} npx ava --timeout=24h test/live/everything.test.ts
	node test/demo-fleet.ts
	npx ava --timeout=1h --concurrency=1 test/soak/fleet-three.test.ts test/soak/fleet-older.test.ts
	node test/bench/blame.bench.ts --windows $${WINDOWS:-200}
	DOMSCHED_XEN_CYCLES=$${DOMSCHED_XEN_CYCLES:-500} npx ava --timeout=24h --concurrency=1 \
		test/live/xen.test.ts test/live/xen-pvh.test.ts test/soak/xen-credit2.test.ts

# Tools to compare with; nothing else needs them.
bench: PACKAGES += python3-drgn
bench: setup kernels kernels-debian kernels-suites xen ## benchmarks: extraction beside gdb, pahole and drgn; the paper's Table 1 on a live Xen
	@node kernels/complete.ts
	node test/bench/extract.bench.ts
	node test/bench/layout.bench.ts
	node test/bench/memory.bench.ts
	node --expose-gc test/bench/snapshot.bench.ts --live
	node test/bench/ps.bench.ts
	node test/bench/unknown-kernel.bench.ts
	node test/bench/surgery.bench.ts
	node test/bench/pause.bench.ts
	node test/bench/daemon.bench.ts
	node test/bench/observers.bench.ts
	node test/bench/hold-delay.bench.ts
	node test/bench/hold-parts.bench.ts --rounds 20
	node test/bench/slow-down.bench.ts
	node test/bench/blame.bench.ts --windows $${WINDOWS:-20}
	node test/bench/split.bench.ts
	node test/bench/fleet.bench.ts
	node test/bench/xen.bench.ts
	node test/bench/start.bench.ts

# Each writes raw data, a picture and a verdict for each claim to .cache/experiments.
experiments: setup kernels kernels-debian kernels-suites xen ## the paper's experiments, on QEMU and on a Xen (short forms, about an hour; DOMSCHED_EXPERIMENTS=full, 5 h; ONLY=table1,xen-fig8; KEEP=1 into docs/experiments)
	@node kernels/complete.ts
	node test/experiments/run.ts

# Guided by coverage: TARGET names one reader (all), RUNS inputs for each, KEEP=1 takes what is new into test/fuzz/corpus.
fuzz: RUNS ?= 100000
fuzz: setup ## each reader of foreign bytes, 100,000 inputs guided by coverage (RUNS=n TARGET=name KEEP=1); 200,000 mutated files, 102,000 corrupted guests
	node test/fuzz/run.ts $(TARGET) --runs $(RUNS) $(if $(KEEP),--keep)
	@node test/bench/fuzz.bench.ts
	DOMSCHED_FUZZ_IMAGES=34000 npx ava --timeout=30m test/runtime/guest/fuzz.test.ts
