$(eval $(call room,frontend/client,$(wildcard frontend/client/*.c)))
