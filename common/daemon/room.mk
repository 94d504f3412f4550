$(eval $(call room,common/daemon,$(wildcard common/daemon/*.c)))
