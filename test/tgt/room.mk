# The tgt module over a fake client library, and the comparison of its ABI declaration with a tgt source tree.
FAKE_MODULE := $(B)/test/tgt/bs_overlaybd.so
FAKE_OBJS   := $(patsubst %.c,$(O)/%.o,$(wildcard frontend/tgt/*.c)) $(O)/test/tgt/fake_client.o
OBJS += $(O)/test/tgt/fake_client.o

$(FAKE_MODULE): $(FAKE_OBJS) $(O)/common/base.a frontend/tgt/bs_overlaybd.map
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) $(ALL_LDFLAGS) $(TGT_LDFLAGS) -o $@ $(FAKE_OBJS) $(O)/common/base.a

test-tools: $(B)/test/obd-scsi $(B)/test/obd-mixed $(B)/test/obd-ops $(FAKE_MODULE)
$(eval $(call program,test/obd-scsi,test/tgt/obd-scsi.c,,-liscsi))
$(eval $(call program,test/obd-mixed,test/tgt/obd-mixed.c,,-liscsi))
$(eval $(call program,test/obd-ops,test/tgt/obd-ops.c,,-liscsi))

.PHONY: fake-module check-tgt-abi
fake-module: $(FAKE_MODULE) ## the tgt module over a fake client library, for tests

check-tgt-abi: ## compare tgt_abi.h with a tgt source tree: TGT_SRC=.../tgt/usr
ifeq ($(TGT_SRC),)
	@echo "skip check-tgt-abi: TGT_SRC= names no tgt source tree (the directory that holds tgtd.h)"
else
	@mkdir -p $(B)/test/tgt
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -w -I. -I$(TGT_SRC) -o $(B)/test/tgt/abi_probe test/tgt/abi_probe.c
	$(Q)$(B)/test/tgt/abi_probe
endif
