# The layer tools. What they share is an archive; each main is a file of its own.
LAYER_MAINS := create commit zfile merge resize info
LAYER_ROOMS := tools/layer common/config common/format common/base
LAYER_LIBS  := -lyaml -ljansson -llz4 -lzstd -lcrypto
$(eval $(call room,tools/layer,$(filter-out $(LAYER_MAINS:%=tools/layer/%.c),$(wildcard tools/layer/*.c))))
$(foreach m,$(LAYER_MAINS),$(eval $(call program,bin/overlaybd-$(m),tools/layer/$(m).c,$(LAYER_ROOMS),$(LAYER_LIBS))))
PROGRAMS += $(LAYER_MAINS:%=$(B)/bin/overlaybd-%)
