/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a fetcher keeps of its rights. It speaks to registries and parses what they say, so it is the one to be broken into.
 *
 *   user      fetcherUser, if it exists
 *   files     layerDirs and cacheDir, and what libraries and credentials need, read-only; without layerDirs every file may be
 *             read, and regular files may be written where the user may
 *   rights    CAP_DAC_READ_SEARCH: layers and credentials are often root's alone. To download into root's directories
 *             CAP_DAC_OVERRIDE too, but only where landlock holds it to layerDirs
 */
#ifndef OBD_FETCHER_RIGHTS_H
#define OBD_FETCHER_RIGHTS_H

struct obd_config;

/* Called while there is one thread. 0, or a negative errno (logged). */
int obd_fetcher_drop_rights(const struct obd_config *config);

#endif
