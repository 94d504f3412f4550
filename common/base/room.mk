$(eval $(call room,common/base,$(wildcard common/base/*.c)))
