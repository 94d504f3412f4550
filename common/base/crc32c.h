/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The CRC-32C register as ZFile and trace files use it: polynomial 0x1EDC6F41, reflected, no inversion at either end.
 * The usual crc32c() is ~obd_crc32c_raw(~seed, ...). Chooses a hardware instruction at run time where there is one.
 * Reentrant; never blocks.
 */
#ifndef OBD_COMMON_BASE_CRC32C_H
#define OBD_COMMON_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t obd_crc32c_raw(uint32_t seed, const void *data, size_t len);

#endif
