/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names that the tables of layout.h give, as they are printed. */
#include <assert.h>

#include "common/base/util.h"
#include "tools/stat.h"

const char *obd_stat_frame_state_name(unsigned int state)
{
	static const char *const names[OBD_FRAME_STATES] = {
		[OBD_FRAME_FREE] = "free",     [OBD_FRAME_FILLING] = "filling",	  [OBD_FRAME_VALID] = "valid",
		[OBD_FRAME_FAILED] = "failed", [OBD_FRAME_EVICTING] = "evicting",
	};
	assert(state < OBD_FRAME_STATES);
	return names[state];
}

const char *obd_stat_prio_name(unsigned int prio)
{
	static const char *const names[OBD_PRIOS] = {
		[OBD_PRIO_DEMAND] = "demand",
		[OBD_PRIO_READAHEAD] = "readahead",
		[OBD_PRIO_PREFETCH] = "prefetch",
		[OBD_PRIO_DOWNLOAD] = "download",
	};
	assert(prio < OBD_PRIOS);
	return names[prio];
}

const char *obd_stat_disk_state_name(enum obd_disk_state state)
{
	static const char *const names[] = {
		[OBD_DISK_NONE] = "none",
		[OBD_DISK_OFF] = "off",
		[OBD_DISK_ON] = "on",
		[OBD_DISK_READ_ONLY] = "read-only",
	};
	assert((unsigned int)state < OBD_ARRAY_SIZE(names));
	return names[state];
}

const char *obd_stat_layer_state_name(enum obd_layer_state state)
{
	static const char *const names[] = {
		[OBD_LAYER_FREE] = "free",
		[OBD_LAYER_SOURCE] = "source",
		[OBD_LAYER_MAPPED] = "mapped",
		[OBD_LAYER_READY] = "ready",
	};
	assert((unsigned int)state < OBD_ARRAY_SIZE(names));
	return names[state];
}

const char *obd_stat_host_state_name(enum obd_stat_host_state state)
{
	static const char *const names[] = {
		[OBD_STAT_HOST_OK] = "ok",
		[OBD_STAT_HOST_SILENT] = "silent",
		[OBD_STAT_HOST_FAILING] = "failing",
	};
	assert((unsigned int)state < OBD_ARRAY_SIZE(names));
	return names[state];
}

const char *obd_stat_down_state_name(enum obd_down_state state)
{
	static const char *const names[OBD_DOWN_STATES] = {
		[OBD_DOWN_FREE] = "free",	    [OBD_DOWN_WAITING] = "waiting", [OBD_DOWN_RUNNING] = "running",
		[OBD_DOWN_VERIFYING] = "verifying", [OBD_DOWN_LOCAL] = "local",	    [OBD_DOWN_FAILED] = "failed",
	};
	assert((unsigned int)state < OBD_DOWN_STATES);
	return names[state];
}

const char *obd_stat_counter_name(unsigned int counter)
{
	static const char *const names[OBD_C_COUNT] = {
#define X(name, text) #name,
		OBD_COUNTER_TABLE(X)
#undef X
	};
	assert(counter < OBD_C_COUNT);
	return names[counter];
}

const char *obd_stat_counter_text(unsigned int counter)
{
	static const char *const texts[OBD_C_COUNT] = {
#define X(name, text) text,
		OBD_COUNTER_TABLE(X)
#undef X
	};
	assert(counter < OBD_C_COUNT);
	return texts[counter];
}
