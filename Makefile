# SPDX-License-Identifier: GPL-2.0-or-later
# overlaybd: one Makefile, a short fragment (room.mk) per folder. `make help` lists the targets.
#
#   make                     release build into build/
#   make SAN=address,undefined   the same tree into build/san-address-undefined/
#   make SAN=thread              into build/san-thread/
#   make TESTPOINTS=1        with test points compiled in, into build/testpoints/ (and with SAN=)
#   make WERROR=1            warnings are errors (CI)
#   make check lint          what must hold before a commit

SAN     ?=
TESTPOINTS ?=
WERROR  ?=
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
comma   := ,
VARIANT := $(if $(TESTPOINTS),/testpoints)$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
B       := build$(VARIANT)
O       := $(B)/obj
VERSION := $(shell cat VERSION)

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wvla \
            -Wformat=2 -Wundef -Wconversion -Wno-sign-conversion
CFLAGS   ?= -O2 -g
ALL_CFLAGS := -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DOBD_VERSION='"$(VERSION)"' -I. -fPIC -fvisibility=hidden \
            -fno-strict-aliasing -fno-common -fstack-protector-strong $(WARNINGS) $(if $(WERROR),-Werror) $(CFLAGS) $(if $(TESTPOINTS),-DOBD_TESTPOINTS) \
            $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all) \
            $(if $(filter thread,$(SAN)),-Wno-tsan)
# -Wno-tsan: the thread sanitizer does not see fences, and gcc says so at each; test/stress/tsan.supp names what follows from it.
ALL_LDFLAGS := -Wl,-z,relro,-z,now -Wl,--as-needed $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN)) -pthread

.DEFAULT_GOAL := all
.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: all help clean check check-quick check-tsan lint lint-headers install uninstall

# Where tests find their data; the tests of all rooms rely on it.
export OBD_TEST_DATA := $(CURDIR)/test/data

# $(call room,NAME,SOURCES): one static archive per room, $(O)/NAME.a.
define room
$(O)/$(1).a: $(patsubst %.c,$(O)/%.o,$(2))
	@mkdir -p $$(@D)
	@rm -f $$@
	$$(Q)$(AR) rcs $$@ $$^
OBJS += $(patsubst %.c,$(O)/%.o,$(2))
ROOM_SRCS += $(2)
endef

# $(call program,OUTPUT,SOURCES,ROOMS from highest to lowest,LIBRARIES): a binary below $(B)/.
define program
$(B)/$(1): $(patsubst %.c,$(O)/%.o,$(2)) $(patsubst %,$(O)/%.a,$(3))
	@mkdir -p $$(@D)
	@echo "  LINK  $$@"
	$$(Q)$$(CC) $$(ALL_LDFLAGS) -o $$@ $(patsubst %.c,$(O)/%.o,$(2)) $(patsubst %,$(O)/%.a,$(3)) $(4)
OBJS += $(patsubst %.c,$(O)/%.o,$(2))
BINS += $(B)/$(1)
endef

V ?=
Q := $(if $(V),,@)

$(O)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

include $(sort $(wildcard */room.mk */*/room.mk))

all: $(PROGRAMS) ## build every program and the tgt module into build/

clean: ## remove everything that make built
	rm -rf build

# ---- tests ------------------------------------------------------------------------------------------------------------

# Rooms may add steps. Everything is built first, with all the jobs that make was given; then one step runs after another.
# tgtd and libiscsi know nothing of a thread sanitizer's build: that variant runs without integration.
CHECK_STEPS += check-unit check-fuzz-corpus check-stress
CHECK_BINS  := $(PROGRAMS) $(filter $(B)/test/%,$(BINS))

check: $(CHECK_BINS) test-tools crash-build ## every test; closes with "N passed, N failed"; integration needs root
	+$(Q)MAKE="$(MAKE)" test/check.sh $(CHECK_STEPS) $(if $(filter thread,$(SAN)),,check-integration)

check-quick: $(CHECK_BINS) ## the same without the integration tests, in a minute
	+$(Q)MAKE="$(MAKE)" test/check.sh $(CHECK_STEPS)

check-tsan: ## check-quick with SAN=thread
	+$(Q)$(MAKE) --no-print-directory SAN=thread check-quick

# Each header must compile alone, with the flags of the tree.
HEADERS_ALONE := $(patsubst %,$(O)/%.alone,$(filter-out build/%,$(wildcard */*.h */*/*.h)))
lint-headers: $(HEADERS_ALONE)
$(O)/%.h.alone: %.h
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Werror -MMD -MP -MF $(@:.alone=.d) -MT $@ -fsyntax-only -x c $< && touch $@

lint: ## includes, headers alone, formatting, shell, man pages, licence lines
	$(Q)rc=0; $(MAKE) --no-print-directory -k lint-headers && echo "ok lint: each header compiles alone" || rc=1; \
	  scripts/lint.sh || rc=1; exit $$rc

# ---- installation -----------------------------------------------------------------------------------------------------

DESTDIR   ?=
bindir    ?= /opt/overlaybd/bin
moduledir ?= /usr/lib/tgt/backing-store
confdir   ?= /etc/overlaybd
mandir    ?= /usr/share/man
MANUALS   := $(wildcard doc/*.[1-9])

install: all ## programs, module, man pages, and the configuration where there is none; DESTDIR=
	install -d "$(DESTDIR)$(bindir)" "$(DESTDIR)$(moduledir)" "$(DESTDIR)$(confdir)"
	install -m 755 $(filter $(B)/bin/%,$(PROGRAMS)) "$(DESTDIR)$(bindir)"
	install -m 644 $(filter $(B)/lib/%,$(PROGRAMS)) "$(DESTDIR)$(moduledir)"
	[ -e "$(DESTDIR)$(confdir)/overlaybd.yaml" ] || install -m 644 conf/overlaybd.yaml "$(DESTDIR)$(confdir)"
	for m in $(MANUALS); do install -D -m 644 $$m "$(DESTDIR)$(mandir)/man$${m##*.}/$${m##*/}" || exit 1; done

uninstall: ## remove what install made; a configuration that was changed stays
	rm -f $(patsubst %,"$(DESTDIR)$(bindir)/%",$(notdir $(filter $(B)/bin/%,$(PROGRAMS))))
	rm -f $(patsubst %,"$(DESTDIR)$(moduledir)/%",$(notdir $(filter $(B)/lib/%,$(PROGRAMS))))
	! cmp -s conf/overlaybd.yaml "$(DESTDIR)$(confdir)/overlaybd.yaml" || rm "$(DESTDIR)$(confdir)/overlaybd.yaml"
	for m in $(MANUALS); do rm -f "$(DESTDIR)$(mandir)/man$${m##*.}/$${m##*/}"; done
	-rmdir "$(DESTDIR)$(bindir)" "$(DESTDIR)$(dir $(bindir))" "$(DESTDIR)$(confdir)" 2>/dev/null

# ---- help -------------------------------------------------------------------------------------------------------------

help: ## this list
	@grep -hE '^[a-z][a-z_-]*:.*##' Makefile $(sort $(wildcard */room.mk */*/room.mk)) | sed -E 's/:.*## */\t/' | sort | \
	  awk -F'\t' '{printf "  make %-18s %s\n", $$1, $$2}'
	@echo "  Variants: SAN=address,undefined  SAN=thread  TESTPOINTS=1  WERROR=1  V=1"

-include $(OBJS:.o=.d) $(HEADERS_ALONE:.alone=.d)
