# Benchmarks. Their numbers never fail anything; wrong data does.
BENCH_TOOLS := $(B)/bench/obd-bench-client
$(eval $(call program,bench/obd-bench-client,test/bench/obd-bench-client.c,frontend/client shmcache common/format common/daemon common/base,-llz4 -lzstd))
BENCH_TOOLS += $(B)/bench/obd-bench-cold
$(eval $(call program,bench/obd-bench-cold,test/bench/obd-bench-cold.c,frontend/client shmcache common/format common/daemon common/base,-llz4 -lzstd))

.PHONY: bench-tools bench bench-cold
bench-tools: $(BENCH_TOOLS) ## the programs that benchmarks use
bench: all test-tools bench-tools ## measure cached reads and writes through tgtd (root; BENCH_ONLY="1 2 3 4")
	$(Q)B=$(B) test/bench/run.sh
bench-cold: all test-tools bench-tools ## measure reads that are not cached: round trips, readahead, fairness on a slow link
	$(Q)B=$(B) test/bench/cold.sh
.PHONY: bench-start
bench-start: all test-tools ## measure what fetching ahead is worth: a recorded start, and find / on a mounted image, on a slow link
	$(Q)B=$(B) test/bench/start.sh
.PHONY: bench-idle
bench-idle: all test-tools ## measure what an idle group costs: processor time and memory with 0 and with 64 LUNs
	$(Q)B=$(B) test/bench/idle.sh
