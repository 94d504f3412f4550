# SPDX-License-Identifier: GPL-2.0-or-later
# overlaybd: one Makefile, a short fragment (room.mk) per folder. `make help` lists the targets.
#
#   make                     release build into build/
#   make SAN=address,undefined   the same tree into build/san-address-undefined/
#   make SAN=thread              into build/san-thread/
#   make WERROR=1            warnings are errors (CI)

SAN     ?=
WERROR  ?=
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
comma   := ,
VARIANT := $(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
B       := build$(VARIANT)
O       := $(B)/obj
VERSION := $(shell cat VERSION)

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wvla \
            -Wformat=2 -Wundef -Wconversion -Wno-sign-conversion
CFLAGS   ?= -O2 -g
ALL_CFLAGS := -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DOBD_VERSION='"$(VERSION)"' -I. -fPIC -fvisibility=hidden \
            -fno-strict-aliasing -fno-common -fstack-protector-strong $(WARNINGS) $(if $(WERROR),-Werror) $(CFLAGS) \
            $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
ALL_LDFLAGS := -Wl,-z,relro,-z,now -Wl,--as-needed $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN)) -pthread

.DEFAULT_GOAL := all
.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: all help clean

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

help: ## this list
	@grep -hE '^[a-z][a-z_-]*:.*##' Makefile $(sort $(wildcard */room.mk */*/room.mk)) | sed -E 's/:.*##/\t/' | sort | \
	  awk -F'\t' '{printf "  make %-18s %s\n", $$1, $$2}'
	@echo "  Variants: SAN=address,undefined  SAN=thread  WERROR=1  V=1"

-include $(OBJS:.o=.d)
