// SPDX-License-Identifier: GPL-2.0
/*
 * COSY_OP_ACCEPT, COSY_OP_RECEIVE, COSY_OP_SEND: what a server does for all connections that
 * are ready. Nothing waits, so that no connection holds up the others.
 */
#include <linux/net.h>
#include <linux/socket.h>
#include <linux/uio.h>

#include "cosy.h"

static int may_accept(int fd)
{
	int err;
	struct socket *sock = sockfd_lookup(fd, &err);

	if (!sock)
		return err;
	err = sock->file->f_flags & O_NONBLOCK ? 0 : -EINVAL;
	sockfd_put(sock);
	return err;
}

s64 cosy_accept(struct cosy_op *op, int *status)
{
	int flags = (op->flags & COSY_WANT_NONBLOCK ? SOCK_NONBLOCK : 0) |
		    (op->flags & COSY_WANT_CLOEXEC ? SOCK_CLOEXEC : 0);
	s64 fd = may_accept(op->args[0]), n = 0;

	if (fd)
		return fd;
	while (cosy_room(op) >= sizeof(s32)) {
		*status = cosy_tick(op->budget);
		if (*status)
			break;
		fd = cosy_call_accept(op->args[0], flags);
		if (fd < 0)
			break;
		put_unaligned((s32)fd, (s32 *)(op->out + op->used));
		op->used += sizeof(s32);
		n++;
	}
	return n ? n : min_t(s64, fd, 0);
}

static s32 receive(int fd, void *to, u32 most)
{
	struct msghdr msg = { .msg_flags = 0 };
	struct kvec vec = { .iov_base = to, .iov_len = most };
	int ret;
	struct socket *sock = sockfd_lookup(fd, &ret);

	if (!sock)
		return ret;
	ret = kernel_recvmsg(sock, &msg, &vec, 1, most, MSG_DONTWAIT);
	sockfd_put(sock);
	/* of a datagram that was longer the rest is gone, as with recv() */
	return cosy_errno(ret);
}

s64 cosy_receive(struct cosy_op *op, int *status)
{
	u32 most = min_t(u64, op->args[6], COSY_LONG_BYTES);
	s64 count = op->names_bytes / sizeof(s32), n;

	for (n = 0; n < count; n++) {
		struct cosy_message *m = (struct cosy_message *)(op->out + op->used);
		s32 fd = get_unaligned((const s32 *)op->names + n), got;

		if (sizeof(*m) + ALIGN(most, 8) > cosy_room(op))
			return n ? n : -ENOSPC;
		*status = cosy_tick(op->budget);
		if (*status)
			break;
		got = receive(fd, m + 1, most);
		m->fd = fd;
		m->result = got;
		op->used += sizeof(*m);
		if (got > 0) {
			memset((u8 *)(m + 1) + got, 0, ALIGN(got, 8) - got);
			op->used += ALIGN(got, 8);
		}
	}
	return n;
}

static s32 send(int fd, const void *from, u32 bytes)
{
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
	struct kvec vec = { .iov_base = (void *)from, .iov_len = bytes };
	int ret;
	struct socket *sock = sockfd_lookup(fd, &ret);

	if (!sock)
		return ret;
	ret = kernel_sendmsg(sock, &msg, &vec, 1, bytes);
	sockfd_put(sock);
	return cosy_errno(ret);
}

s64 cosy_send(struct cosy_op *op, int *status)
{
	u32 at = 0;
	s64 n = 0;

	while (op->names_bytes - at >= sizeof(struct cosy_message) &&
	       cosy_room(op) >= sizeof(s32)) {
		struct cosy_message m;
		u32 bytes;
		s32 sent = 0;

		memcpy(&m, op->names + at, sizeof(m)); /* once: others may write there */
		bytes = max(m.result, 0);
		if (ALIGN((u64)bytes, 8) > op->names_bytes - at - sizeof(m))
			return n ? n : -EINVAL;
		*status = cosy_tick(op->budget);
		if (*status)
			break;
		if (bytes)
			sent = send(m.fd, op->names + at + sizeof(m), min(bytes, COSY_LONG_BYTES));
		put_unaligned(sent, (s32 *)(op->out + op->used));
		op->used += sizeof(s32);
		at += sizeof(m) + ALIGN(bytes, 8);
		n++;
	}
	return n;
}
