# Unit tests: every test/unit/check_NAME.c becomes a program that links all library rooms.
TEST_ROOMS := supervisor shmcache/cached shmcache common/daemon common/config common/format common/base
TEST_LIBS  := -lcheck -lsubunit -lm -lrt -ljansson -lyaml -llz4 -lzstd -laio
UNIT_SRCS  := $(wildcard test/unit/check_*.c)
UNIT_BINS  := $(patsubst test/unit/%.c,$(B)/test/%,$(UNIT_SRCS))
$(foreach s,$(UNIT_SRCS),$(eval $(call program,test/$(basename $(notdir $(s))),$(s),$(TEST_ROOMS),$(TEST_LIBS))))

# A room with a test program of its own makes check-unit depend on the target that runs it.
.PHONY: check-unit check-unit-rooms
check-unit: check-unit-rooms ## unit tests (Check)

check-unit-rooms: $(UNIT_BINS)
	$(Q)rc=0; for t in $(UNIT_BINS); do echo "== $$t"; $$t || rc=1; done; exit $$rc
