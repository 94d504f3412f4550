# obd-cached. Everything but main is an archive, so that tests drive the cache manager in their own process.
$(eval $(call room,shmcache/cached,$(filter-out shmcache/cached/main.c,$(wildcard shmcache/cached/*.c))))
$(eval $(call program,bin/obd-cached,shmcache/cached/main.c,shmcache/cached shmcache common/format common/daemon common/config common/base,-lyaml -ljansson -llz4 -lzstd))
PROGRAMS += $(B)/bin/obd-cached
