# The stress test of the shared-memory protocol.
STRESS := $(B)/test/obd-stress
$(eval $(call program,test/obd-stress,$(wildcard test/stress/*.c),shmcache/cached shmcache common/daemon common/config common/base,-lyaml -ljansson))
TEST_TOOLS += $(STRESS)

STRESS_RUN := TSAN_OPTIONS="suppressions=$(CURDIR)/test/stress/tsan.supp history_size=4 $(TSAN_OPTIONS)" $(STRESS)

.PHONY: check-stress
check-stress: $(STRESS) ## obd-cached among readers and fetchers that die at random, in threads and in processes
	$(Q)$(STRESS_RUN) -t 6 -s 1
	$(Q)$(STRESS_RUN) -t 3 -s 2 -r 7 -f 3 -n 24
	$(Q)case "$(SAN)" in *thread*) ;; *) $(STRESS_RUN) -k -t 6 -s 3 -r 6 -f 3;; esac

# test/unit/check_shmcache.c drives cached's own functions: two rooms more than the other unit tests link.
SHMCACHE_ROOMS := $(O)/shmcache/cached.a $(O)/shmcache.a
$(B)/test/check_shmcache: $(SHMCACHE_ROOMS)
$(B)/test/check_shmcache: ALL_LDFLAGS += -Wl,--whole-archive $(SHMCACHE_ROOMS) -Wl,--no-whole-archive
