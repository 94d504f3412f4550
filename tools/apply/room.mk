# overlaybd-apply. Everything but main is an archive, so that its tests and the fuzzer can link it.
APPLY_ROOMS := tools/apply common/config common/format common/base
APPLY_LIBS  := -larchive -lext2fs -lcom_err -lcrypto -lyaml -ljansson -llz4 -lzstd
$(eval $(call room,tools/apply,$(filter-out %/main.c,$(wildcard tools/apply/*.c))))
$(eval $(call program,bin/overlaybd-apply,tools/apply/main.c,$(APPLY_ROOMS),$(APPLY_LIBS)))
PROGRAMS += $(B)/bin/overlaybd-apply

CHECK_APPLY := $(B)/test/check_apply
$(eval $(call program,test/check_apply,test/tools/check_apply.c,$(APPLY_ROOMS),-lcheck -lsubunit -lm -lrt $(APPLY_LIBS)))

.PHONY: check-apply
check-apply: $(CHECK_APPLY)
	$(Q)echo "== $<"; $<
check-unit: check-apply
