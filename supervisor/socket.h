/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Unix sockets with a name in the file system, and who is at their other end. All are close-on-exec. */
#ifndef OBD_SUPERVISOR_SOCKET_H
#define OBD_SUPERVISOR_SOCKET_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>

/* A listening socket of a type (SOCK_STREAM, SOCK_SEQPACKET, with SOCK_NONBLOCK if wanted) in place of what was there, with
 * that mode. Returns the descriptor or a negative errno; then the file may be there all the same. */
int obd_socket_listen(const char *path, int type, mode_t mode, int backlog);

/* A connected socket, or a negative errno. limit: for connecting, sending and receiving on a blocking one; NULL: none. */
int obd_socket_connect(const char *path, int type, const struct timeval *limit);

/* Is it root or our own user, by the kernel's word? Sets *cred; pid 0 when even that is not known. */
bool obd_socket_is_trusted(int fd, struct ucred *cred);

#endif
