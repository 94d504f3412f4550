# Everything but main is an archive, so that unit tests can link it.
$(eval $(call room,supervisor,$(filter-out supervisor/main.c,$(wildcard supervisor/*.c))))
$(eval $(call program,bin/obd-supervisor,supervisor/main.c,supervisor common/daemon common/config common/base,-lyaml -ljansson))
PROGRAMS += $(B)/bin/obd-supervisor
