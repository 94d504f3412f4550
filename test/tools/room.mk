# Programs that only tests and the demo use. They are built by `make test-tools`, not by `make`.
TEST_TOOLS := $(B)/test/obd-iscsi $(B)/test/obd-mklayer
$(eval $(call program,test/obd-iscsi,test/tools/obd-iscsi.c test/tools/latency.c,,-liscsi -lcrypto))
$(eval $(call program,test/obd-mklayer,test/tools/obd-mklayer.c,common/format common/base,-llz4 -lzstd))
TEST_TOOLS += $(B)/test/obd-blobserve
$(eval $(call program,test/obd-blobserve,test/tools/obd-blobserve.c,common/base,))
TEST_TOOLS += $(B)/test/fakechild
$(eval $(call program,test/fakechild,test/tools/fakechild.c,common/daemon common/config common/base,-lyaml -ljansson))

# Loaded into a group by LD_PRELOAD: a disk that hangs or fails.
TEST_TOOLS += $(B)/test/baddisk.so
$(B)/test/baddisk.so: test/tools/baddisk.c
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O1 -Wall -Wextra -fPIC -shared -o $@ $< -ldl

.PHONY: test-tools
test-tools: $(TEST_TOOLS) ## the iSCSI client and the layer maker that tests use

.PHONY: check-integration
check-integration: all test-tools ## integration tests with tgtd and a registry (root); T="020 040" runs some of them
	$(Q)B=$(B) test/integration/run.sh $(T)
