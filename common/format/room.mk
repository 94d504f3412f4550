$(eval $(call room,common/format,$(wildcard common/format/*.c)))
