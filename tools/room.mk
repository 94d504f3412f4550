# obd-stat. Everything but main is an archive, so that its test can link it.
STAT_ROOMS := tools shmcache common/daemon common/config common/base
STAT_LIBS  := -lyaml -ljansson
$(eval $(call room,tools,$(wildcard tools/stat_*.c)))
$(eval $(call program,bin/obd-stat,tools/obd-stat.c,$(STAT_ROOMS),$(STAT_LIBS)))
PROGRAMS += $(B)/bin/obd-stat

CHECK_STAT := $(B)/test/check_stat
$(eval $(call program,test/check_stat,test/tools/check_stat.c,$(STAT_ROOMS),-lcheck -lsubunit -lm -lrt $(STAT_LIBS)))

.PHONY: check-stat
check-stat: $(CHECK_STAT)
	$(Q)echo "== $<"; $<
	$(Q)sed -n 's/^\tX(\([a-z0-9_]*\), "\(.*\)").*/.It \1 Ta \2/p' shmcache/layout.h | while IFS= read -r line; do \
	  grep -qxF "$$line" doc/obd-stat.1 || { echo "doc/obd-stat.1 lacks: $$line"; exit 1; }; done
check-unit: check-stat
