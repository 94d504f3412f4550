INDEXER_LIBS := -llz4 -lzstd -lyaml -ljansson -laio -lrt
INDEXER_ROOMS := indexer shmcache common/format common/daemon common/config common/base
$(eval $(call room,indexer,$(filter-out indexer/main.c,$(wildcard indexer/*.c))))
$(eval $(call program,bin/obd-indexer,indexer/main.c,$(INDEXER_ROOMS),$(INDEXER_LIBS)))
PROGRAMS += $(B)/bin/obd-indexer

INDEXER_TEST_LIBS := -lcheck -lsubunit -lm -lrt $(INDEXER_LIBS)
INDEXER_FAKE := test/indexer/fake.c
$(eval $(call program,test/check_indexer,test/indexer/check_indexer.c $(INDEXER_FAKE),$(INDEXER_ROOMS),$(INDEXER_TEST_LIBS)))
$(eval $(call program,test/check_upper_io,test/indexer/check_upper_io.c $(INDEXER_FAKE),$(INDEXER_ROOMS),$(INDEXER_TEST_LIBS)))
$(eval $(call program,test/check_writable,test/indexer/check_writable.c $(INDEXER_FAKE),frontend/client $(INDEXER_ROOMS),$(INDEXER_TEST_LIBS)))
$(eval $(call program,test/check_fsmeta,test/indexer/check_fsmeta.c,$(INDEXER_ROOMS),$(INDEXER_TEST_LIBS) -lext2fs -lcom_err))
$(eval $(call program,test/check_prefetch,test/indexer/check_prefetch.c $(INDEXER_FAKE),$(INDEXER_ROOMS),$(INDEXER_TEST_LIBS)))
INDEXER_CHECKS := $(addprefix $(B)/test/,check_indexer check_upper_io check_writable check_fsmeta check_prefetch)
.PHONY: check-indexer
check-indexer: $(INDEXER_CHECKS) ## unit tests of the indexer
	$(Q)rc=0; for t in $(INDEXER_CHECKS); do $$t || rc=1; done; exit $$rc
check-unit: check-indexer
