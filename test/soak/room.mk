.PHONY: soak
soak: all test-tools ## MINUTES=10 of kills, stops and outages under verifying load (root); SOAK_EVENTS= SOAK_SEED=
	$(Q)B=$(B) test/soak/run.sh
