# The tgt module: a shared object that tgtd loads; tgtd's own functions stay undefined in it. A build with SAN= loads into a
# plain tgtd when the sanitizer's run-time library is there first: LD_PRELOAD=$(gcc -print-file-name=libasan.so).
TGT_SRCS := $(wildcard frontend/tgt/*.c)
TGT_OBJS := $(patsubst %.c,$(O)/%.o,$(TGT_SRCS))
TGT_ROOMS := frontend/client shmcache common/format common/daemon common/base
TGT_ARCHIVES := $(patsubst %,$(O)/%.a,$(TGT_ROOMS))
TGT_LDFLAGS := -shared -Wl,-soname,bs_overlaybd.so -Wl,-Bsymbolic -Wl,--version-script=frontend/tgt/bs_overlaybd.map
OBJS += $(TGT_OBJS)

$(B)/lib/bs_overlaybd.so: $(TGT_OBJS) $(TGT_ARCHIVES) frontend/tgt/bs_overlaybd.map
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) $(ALL_LDFLAGS) $(TGT_LDFLAGS) -o $@ $(TGT_OBJS) $(TGT_ARCHIVES)

PROGRAMS += $(B)/lib/bs_overlaybd.so
