$(eval $(call room,common/config,$(wildcard common/config/*.c)))
