FETCHER_ROOMS := fetcher shmcache common/format common/daemon common/config common/base
FETCHER_LIBS  := -lcurl -lcrypto -lrt -llz4 -lzstd -lyaml -ljansson -laio
$(eval $(call room,fetcher,$(filter-out fetcher/main.c,$(wildcard fetcher/*.c)) $(wildcard fetcher/auth/*.c fetcher/http/*.c)))
$(eval $(call program,bin/obd-fetcher,fetcher/main.c,$(FETCHER_ROOMS),$(FETCHER_LIBS)))
PROGRAMS += $(B)/bin/obd-fetcher
