INDEXER_LIBS := -llz4 -lzstd -lyaml -ljansson
INDEXER_ROOMS := indexer shmcache common/format common/daemon common/config common/base
$(eval $(call room,indexer,$(filter-out indexer/main.c,$(wildcard indexer/*.c))))
$(eval $(call program,bin/obd-indexer,indexer/main.c,$(INDEXER_ROOMS),$(INDEXER_LIBS)))
PROGRAMS += $(B)/bin/obd-indexer
