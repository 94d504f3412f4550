# The stress test of the shared-memory protocol.
STRESS := $(B)/test/obd-stress
$(eval $(call program,test/obd-stress,$(wildcard test/stress/*.c),shmcache/cached shmcache common/daemon common/config common/base,-lyaml -ljansson))
TEST_TOOLS += $(STRESS)

# The crash test has cached's files compiled with a look after every store.
CRASH := $(B)/test/obd-crash
CRASH_CACHED := $(patsubst shmcache/cached/%.c,$(O)/test/stress/crash/cached/%.o,$(filter-out shmcache/cached/main.c,$(wildcard shmcache/cached/*.c)))
$(O)/test/stress/crash/cached/%.o: shmcache/cached/%.c test/stress/crash/hook.h
	@mkdir -p $(@D)
	@echo "  CC    $< (hooked)"
	$(Q)$(CC) $(ALL_CFLAGS) -include test/stress/crash/hook.h -MMD -MP -c -o $@ $<
-include $(CRASH_CACHED:.o=.d)
$(eval $(call room,test/stress/crash/cached,))
$(O)/test/stress/crash/cached.a: $(CRASH_CACHED)
$(eval $(call program,test/obd-crash,test/stress/crash/crash.c test/stress/segment.c test/stress/audit.c test/stress/cached.c,test/stress/crash/cached shmcache common/daemon common/config common/base,-lyaml -ljansson))
TEST_TOOLS += $(CRASH)

STRESS_RUN := TSAN_OPTIONS="suppressions=$(CURDIR)/test/stress/tsan.supp history_size=4 $(TSAN_OPTIONS)" $(STRESS)

.PHONY: check-stress
check-stress: $(STRESS) $(CRASH) ## obd-cached among readers and fetchers that die at random, in threads and in processes
	$(Q)$(CRASH) -t 3 -s 1
	$(Q)$(CRASH) -t 3 -s 2 -n 40
	$(Q)$(STRESS_RUN) -t 5 -s 1
	$(Q)$(STRESS_RUN) -t 3 -s 2 -r 16 -f 3 -n 24
	$(Q)case "$(SAN)" in *thread*) ;; *) $(STRESS_RUN) -k -t 5 -s 3 -r 6 -f 3;; esac

# test/unit/check_shmcache.c drives cached's own functions: two rooms more than the other unit tests link.
SHMCACHE_ROOMS := $(O)/shmcache/cached.a $(O)/shmcache.a
$(B)/test/check_shmcache: $(SHMCACHE_ROOMS)
$(B)/test/check_shmcache: ALL_LDFLAGS += -Wl,--whole-archive $(SHMCACHE_ROOMS) -Wl,--no-whole-archive
