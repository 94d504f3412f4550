# Models of the shared-memory protocol, checked by spin (doc/model.md).
CHECK_STEPS += check-model-quick

.PHONY: check-model check-model-quick
check-model: ## spin over the models of the protocol and all their mutants; MODEL="wake ring" names some
	$(Q)test/model/run.sh $(MODEL)

check-model-quick: ## the part of it that make check runs
	$(Q)test/model/run.sh -q $(MODEL)
