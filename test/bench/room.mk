# Benchmarks. Their numbers never fail anything; wrong data does.
BENCH_TOOLS := $(B)/bench/obd-bench-client
$(eval $(call program,bench/obd-bench-client,test/bench/obd-bench-client.c,frontend/client shmcache common/format common/daemon common/base,-llz4 -lzstd))

.PHONY: bench-tools bench
bench-tools: $(BENCH_TOOLS) ## the programs that benchmarks use
bench: all test-tools bench-tools ## measure cached reads and writes through tgtd (root; BENCH_ONLY="1 2 3 4")
	$(Q)B=$(B) test/bench/run.sh
