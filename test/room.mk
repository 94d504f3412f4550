# Unit tests: every test/unit/check_NAME.c becomes a program that links all library rooms.
TEST_ROOMS := supervisor common/daemon common/config common/format common/base
TEST_LIBS  := -lcheck -lsubunit -lm -lrt -ljansson -lyaml -llz4 -lzstd -laio
UNIT_SRCS  := $(wildcard test/unit/check_*.c)
UNIT_BINS  := $(patsubst test/unit/%.c,$(B)/test/%,$(UNIT_SRCS))
$(foreach s,$(UNIT_SRCS),$(eval $(call program,test/$(basename $(notdir $(s))),$(s),$(TEST_ROOMS),$(TEST_LIBS))))

.PHONY: check-unit
check-unit: $(UNIT_BINS) ## unit tests (Check)
	$(Q)set -e; for t in $(UNIT_BINS); do echo "== $$t"; OBD_TEST_DATA=$(CURDIR)/test/data $$t; done
