# The crash suite: kills each role at each of its test points. Its programs make sense with TESTPOINTS=1 only.
CRASH_TOOLS := $(B)/test/obd-testpoint $(B)/test/obd-crash-load
$(eval $(call program,test/obd-testpoint,test/crash/obd-testpoint.c test/crash/control.c,common/base,))
$(eval $(call program,test/obd-crash-load,test/crash/load.c test/crash/control.c,frontend/client shmcache common/format common/daemon common/base,-llz4 -lzstd))

.PHONY: crash-tools crash-build check-crash
crash-tools: all $(CRASH_TOOLS)

crash-build: ## the variant with test points: what its tests run
	+$(Q)$(MAKE) --no-print-directory TESTPOINTS=1 crash-tools

check-crash: test-tools crash-build ## kill each process at each point of the protocol, in all situations (root); CASES= a pattern
	$(Q)B=$(B) C=build/testpoints$(VARIANT) test/crash/run.sh
