INDEXER_LIBS := -llz4 -lzstd -lyaml -ljansson -laio -lrt
INDEXER_ROOMS := indexer shmcache common/format common/daemon common/config common/base
$(eval $(call room,indexer,$(filter-out indexer/main.c,$(wildcard indexer/*.c))))
$(eval $(call program,bin/obd-indexer,indexer/main.c,$(INDEXER_ROOMS),$(INDEXER_LIBS)))
PROGRAMS += $(B)/bin/obd-indexer

$(eval $(call program,test/check_indexer,$(wildcard test/indexer/*.c),$(INDEXER_ROOMS),-lcheck -lsubunit -lm -lrt $(INDEXER_LIBS)))
.PHONY: check-indexer
check-indexer: $(B)/test/check_indexer ## unit tests of the indexer
	$(Q)$<
check-unit: check-indexer
