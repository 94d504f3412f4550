$(eval $(call room,shmcache,$(wildcard shmcache/*.c)))
