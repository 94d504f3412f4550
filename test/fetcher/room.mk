# The fetcher is no library room, so its tests are a program of their own. `make check-unit` runs it with the others.
CHECK_FETCHER := $(B)/test/check_fetcher
$(eval $(call program,test/check_fetcher,$(wildcard test/fetcher/*.c),fetcher shmcache common/format common/daemon common/config common/base,-lcheck -lsubunit -lm -lrt -lcurl -lcrypto -llz4 -lzstd -lyaml -ljansson -laio))

.PHONY: check-fetcher
check-fetcher: $(CHECK_FETCHER)
	$(Q)echo "== $<"; $<
check-unit: check-fetcher
