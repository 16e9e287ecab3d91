# `make run` and `make test` are all a fresh Debian 12 machine needs, as root. Both are safe to repeat.

PYTHON ?= /usr/bin/python3
# Packages come by their checksums, then the project by itself, built with what is here: nothing else is fetched.
PIP = PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install --quiet
HASHED = $(PIP) --require-hashes -r .constraints.txt
PROJECT = $(PIP) --no-deps --no-build-isolation --editable .
SOURCES = pyproject.toml .constraints.txt build.py $(wildcard native/*.c native/*.h)

RUN_PACKAGES = python3 python3-venv python3-dev gcc libc6-dev nftables wireguard-go curl
INSTALL_TEST_PACKAGES = mmdebstrap systemd-container
TEST_PACKAGES = wireguard-tools iproute2 iputils-ping procps git strace iptables systemd busybox-static libzbar0 libseccomp2 groff-base

# A command that runs its arguments as root under a kernel with WireGuard, for hosts whose own has none.
export KERNEL_RUNNER ?=

# The tests out here, a file at a time on each of so many processes (most of them wait); beside them those on the
# kernel's WireGuard.
PROCESSES ?= 3
OUTSIDE = .venv/bin/python -m pytest --kernel without -n $(PROCESSES) --dist loadfile --no-loadscope-reorder
KERNEL = .venv/bin/python -m pytest --kernel only

FUZZ_SECONDS ?= 180
FUZZ_FLAGS = -std=c11 -g -O1 -Wall -Wextra -Werror -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all

SCHEDULES ?= 10000
EXAMPLES ?= 1000
CONNECTIONS ?= 10000
KILLS ?= 500
CUTS ?= 1000
CYCLES ?= 10000
FAULTS ?= 500
FLEETS ?= 2
DUMPS ?= 200
ROUNDS ?= 11
FOLDED ?= 5000000
LIVE_EACH ?= 2000

.PHONY: run test test-all test-install test-install-all dist lint unit kernel fuzz faults fleet-faults kills powercut cycles churn documented bad-clients bench bench-fleet constraints clean

run: .venv/run-ready
	@.make/run

# All but tests/install, and but what repeats (the marks are explained in pyproject.toml). TESTS: only those, one by one.
test: .venv/test-ready lint
ifdef TESTS
	.venv/bin/python -m pytest $(TESTS)
else
	.venv/bin/python -m tests.support.side_by_side $(OUTSIDE) -m 'not long' --beside $(KERNEL) -m 'under_kernel and not long'
endif

# Every test but tests/install: also what takes long, and on both backends all that can run on both.
test-all: .venv/test-ready build/generators lint
	.venv/bin/python -m tests.support.side_by_side $(OUTSIDE) --beside $(KERNEL)

# What makes clients of the API's document, in folders of its own: tests/api/test_generated_clients.py uses it. Where the
# packages cannot be had, those tests are skipped.
build/generators: tests/support/api/generated/requirements.txt tests/support/api/generated/package.json
	@mkdir -p $@
	cp $^ $@
	test -x $@/.venv/bin/python || $(PYTHON) -m venv $@/.venv
	-$@/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $@/requirements.txt
	-cd $@ && npm install --silent --no-audit --no-fund
	@touch $@

# The life of an installed appliance: on a Debian with systemd that is made for it, and kept for the next time.
test-install: .venv/install-test-ready
	.venv/bin/python -m pytest tests/install -m 'not long'

test-install-all: .venv/install-test-ready
	.venv/bin/python -m pytest tests/install

.venv/install-test-ready: .venv/test-ready
	@.make/packages $(INSTALL_TEST_PACKAGES)
	@touch $@

# dist/: the one file, a wheel, and their checksums.
dist: .venv/test-ready
	@.make/dist

lint: .venv/test-ready
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

# The rings that need no root and no network.
unit: .venv/test-ready
	.venv/bin/python -m pytest tests/unit tests/api tests/client

kernel: .venv/test-ready
	.venv/bin/python -m pytest tests/kernel

# Schedules of crashes, faults and clock steps against the metering; prints how many ran, and the seed.
faults: .venv/test-ready
	.venv/bin/python -m tests.faults --schedules $(SCHEDULES)

# Exits, hubs and nats-servers of fleets killed, cut off, wiped and put back as they once were, and what the hub knows
# compared with what the exits have counted: of one hub, of one with a standby that is promoted, and of three. A line each
# says which faults, what was compared, and the seed. FLEETS: of a layout, at the same time.
fleet-faults: .venv/test-ready
	.venv/bin/python -m tests.faults.fleet --faults $(FAULTS) --processes $(FLEETS)
	.venv/bin/python -m tests.faults.fleet --faults $(FAULTS) --processes $(FLEETS) --hubs 2
	.venv/bin/python -m tests.faults.fleet --faults $(FAULTS) --processes $(FLEETS) --hubs 3

# A real server killed in the middle of requests and ticks, and started again; prints what kills met, and the seed.
kills: .venv/test-ready
	.venv/bin/python -m tests.faults.kills --kills $(KILLS)

# A real server's writes recorded, and its disk cut off at any of them; prints how much was recorded, and the seed.
powercut: .venv/test-ready
	.venv/bin/python -m tests.faults.powercut --cuts $(CUTS)

# Sessions opened and closed at a real server; prints what it holds meanwhile.
cycles: .venv/test-ready
	.venv/bin/python -m tests.faults.cycles --cycles $(CYCLES)

# Dumps of 5,000 peers, and the appliance itself, while another process adds and removes peers; prints the seed.
churn: .venv/test-ready
	.venv/bin/python -m tests.faults.churn --dumps $(DUMPS)
	.venv/bin/python -m tests.faults.strangers

# Requests made from the served document, at a real server; prints how many were answered how, and the seed.
documented: .venv/test-ready
	.venv/bin/python -m tests.faults.documented --examples $(EXAMPLES)

# Slow, oversized, malformed and too many clients at a real server; prints what good ones get meanwhile.
bad-clients: .venv/test-ready
	.venv/bin/python -m tests.faults.bad_clients --many $(CONNECTIONS)

# Figures beside what else does the work; writes tests/bench/results.json, and the table and plot of its README.
bench: .venv/bench-ready
	.venv/bin/python -m tests.bench --json tests/bench/results.json --rounds $(ROUNDS)
	.venv/bin/python -m tests.bench.page tests/bench/results.json

# How far a fleet goes: what its parts cost, what a hub pays for ended sessions (1.6 GB of disk a million), and ten exits
# at once, 150 ms from their hub. As root.
bench-fleet: .venv/test-ready
	.venv/bin/python -m tests.bench.fleet_scale
	.venv/bin/python -m tests.bench.fleet_fold --sessions $(FOLDED)
	.venv/bin/python -m tests.bench.fleet_ten --exits 10 --sessions $(LIVE_EACH) --accounts 100 --records 10000 --seconds 60

# Finds are kept in build/fuzz-*; what belongs into the repository is copied to tests/fuzz/corpus by hand.
fuzz: build/fuzz_dump build/fuzz_compare build/fuzz_pool build/fuzz_rows build/fuzz_uapi
	@mkdir -p build/fuzz-dump build/fuzz-compare build/fuzz-pool build/fuzz-rows build/fuzz-uapi
	build/fuzz_dump -max_total_time=$(FUZZ_SECONDS) -timeout=10 -max_len=20000 build/fuzz-dump tests/fuzz/corpus/dump
	build/fuzz_compare -max_total_time=$(FUZZ_SECONDS) -timeout=10 build/fuzz-compare tests/fuzz/corpus/compare
	build/fuzz_pool -max_total_time=$(FUZZ_SECONDS) -timeout=10 build/fuzz-pool tests/fuzz/corpus/pool
	build/fuzz_rows -max_total_time=$(FUZZ_SECONDS) -timeout=10 build/fuzz-rows tests/fuzz/corpus/rows
	build/fuzz_uapi -max_total_time=$(FUZZ_SECONDS) -timeout=10 build/fuzz-uapi tests/fuzz/corpus/uapi

build/fuzz_%: native/fuzz/fuzz_%.c $(wildcard native/*.c native/*.h)
	@.make/packages clang libclang-rt-14-dev
	@mkdir -p build
	clang $(FUZZ_FLAGS) $< -o $@

# For a KERNEL_RUNNER of user-mode Linux on a processor with AMX; the file says why.
build/whole_xstate.so: tests/kernel/emulated/whole_xstate.c
	@.make/packages gcc libc6-dev
	@mkdir -p build
	gcc -std=c11 -O2 -Wall -Wextra -Werror -shared -fPIC -o $@ $<

.venv/run-ready: $(SOURCES)
	@.make/packages $(RUN_PACKAGES)
	@test -x .venv/bin/pip || $(PYTHON) -m venv --clear .venv
	$(HASHED)
	$(PROJECT)
	@touch $@

.venv/test-ready: .venv/run-ready .constraints-dev.txt
	@.make/packages $(TEST_PACKAGES)
	$(HASHED) -r .constraints-dev.txt
	@touch $@

.venv/bench-ready: .venv/test-ready .constraints-bench.txt
	$(HASHED) -r .constraints-dev.txt -r .constraints-bench.txt
	@touch $@

# The checksums of the packages: after a change of pyproject.toml, and to take newer ones (the file says how).
constraints: .venv/run-ready
	.venv/bin/python .make/constraints.py

clean:
	rm -rf .venv build dist *.egg-info appliance/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
