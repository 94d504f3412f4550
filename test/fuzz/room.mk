# Fuzzers. Every fuzz_NAME.c has one entry function. clang links it with libFuzzer into build/fuzz/fuzz_NAME; the ordinary
# compiler links it with replay.c, which plays test/fuzz/corpus/NAME through it as part of `make check`.
FUZZ_SRCS    := $(wildcard test/fuzz/fuzz_*.c)
FUZZ_NAMES   := $(patsubst test/fuzz/fuzz_%.c,%,$(FUZZ_SRCS))
FUZZ_ROOMS   := tools/apply indexer fetcher shmcache common/daemon common/config common/format common/base
FUZZ_LIBS    := -larchive -lext2fs -lcom_err -lcrypto -lcurl -lrt -lyaml -ljansson -llz4 -lzstd -laio
FUZZ_CLANG   ?= clang
FUZZ_SECONDS ?= 0
FUZZ_JOBS    ?= 2
FUZZ_O       := build/fuzz/obj
FUZZ_SAN     := fuzzer,address,undefined
FUZZ_CFLAGS   = $(filter-out -fsanitize=% -O%,$(ALL_CFLAGS)) -O1 -fno-omit-frame-pointer -fno-sanitize-recover=all \
                -fsanitize=$(subst fuzzer,fuzzer-no-link,$(FUZZ_SAN))
FUZZ_OBJS    := $(patsubst %.c,$(FUZZ_O)/%.o,$(FUZZ_SRCS))
FUZZ_ROOM_OBJS := $(patsubst %.c,$(FUZZ_O)/%.o,$(filter-out %/main.c,$(wildcard $(addsuffix /*.c,$(FUZZ_ROOMS)) fetcher/auth/*.c fetcher/http/*.c)))
FUZZ_BINS    := $(patsubst %,build/fuzz/fuzz_%,$(FUZZ_NAMES))
REPLAY_BINS  := $(patsubst %,$(B)/test/replay_%,$(FUZZ_NAMES))

$(foreach n,$(FUZZ_NAMES),$(eval $(call program,test/replay_$(n),test/fuzz/replay.c test/fuzz/fuzz_$(n).c,$(FUZZ_ROOMS),$(FUZZ_LIBS))))

$(FUZZ_O)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  FUZZ  $<"
	$(Q)$(FUZZ_CLANG) $(FUZZ_CFLAGS) -MMD -MP -c -o $@ $<

build/fuzz/rooms.a: $(FUZZ_ROOM_OBJS)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$(FUZZ_BINS): build/fuzz/fuzz_%: $(FUZZ_O)/test/fuzz/fuzz_%.o build/fuzz/rooms.a
	@echo "  LINK  $@"
	$(Q)$(FUZZ_CLANG) -fsanitize=$(FUZZ_SAN) -Wl,--as-needed -o $@ $^ $(FUZZ_LIBS) -pthread

.PHONY: fuzz check-fuzz-corpus
# Decided when the target runs, so that no other target starts a compiler.
fuzz: ## build the fuzzers (clang); FUZZ_SECONDS=600 runs each so long, two at a time; FUZZ="tar zfile" names some
	@if ! command -v $(FUZZ_CLANG) >/dev/null; then \
	  echo "SKIP fuzz: $(FUZZ_CLANG) is not installed (scripts/install-deps.sh --fuzz)"; \
	else \
	  $(MAKE) --no-print-directory SAN= build-fuzz && \
	  test/fuzz/run.sh $(FUZZ_SECONDS) $(FUZZ_JOBS) $(or $(FUZZ),$(FUZZ_NAMES)); \
	fi

.PHONY: build-fuzz
build-fuzz: $(FUZZ_BINS)

check-fuzz-corpus: $(REPLAY_BINS) ## replay the fuzzers' inputs with the ordinary compiler
	$(Q)rc=0; for n in $(FUZZ_NAMES); do $(B)/test/replay_$$n test/fuzz/corpus/$$n || rc=1; done; exit $$rc

-include $(FUZZ_OBJS:.o=.d) $(FUZZ_ROOM_OBJS:.o=.d)
