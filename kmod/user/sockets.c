// SPDX-License-Identifier: MIT
/* Accepting, receiving and sending for many sockets, as the plain calls. Layouts: cosy_module.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "fused.h"

#define MESSAGE_MOST (64u << 10) /* as the module */

int64_t plain_accept(struct op *op)
{
	int flags = (op->want & COSY_WANT_NONBLOCK ? SOCK_NONBLOCK : 0) |
		    (op->want & COSY_WANT_CLOEXEC ? SOCK_CLOEXEC : 0);
	int listening = (int)op->args[0], how = fcntl(listening, F_GETFL), fd = 0;
	struct stat st;
	int64_t n = 0;

	if (how < 0 || fstat(listening, &st))
		return -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	if (!(how & O_NONBLOCK))
		return -EINVAL;
	while (op->room - op->used >= sizeof(int32_t)) {
		op->status = plain_tick(op->budget);
		if (op->status)
			break;
		fd = accept4(listening, NULL, NULL, flags);
		if (fd < 0) {
			fd = -errno;
			break;
		}
		memcpy(op->out + op->used, &fd, sizeof(int32_t));
		op->used += sizeof(int32_t);
		n++;
	}
	return n ? n : fd < 0 ? fd : 0;
}

int64_t plain_receive(struct op *op, const unsigned char *fds, uint64_t bytes)
{
	uint64_t most = op->args[6] < MESSAGE_MOST ? op->args[6] : MESSAGE_MOST;
	int64_t n = 0;

	for (; bytes >= sizeof(int32_t); bytes -= sizeof(int32_t), n++) {
		struct cosy_message m;
		unsigned char *to = op->out + op->used + sizeof(m);
		ssize_t got;

		if (sizeof(m) + padded(most) > op->room - op->used)
			return n ? n : -ENOSPC;
		op->status = plain_tick(op->budget);
		if (op->status)
			break;
		memcpy(&m.fd, fds + n * (int64_t)sizeof(int32_t), sizeof(m.fd));
		got = recv(m.fd, to, most, MSG_DONTWAIT);
		m.result = got < 0 ? -errno : (int32_t)got;
		memcpy(op->out + op->used, &m, sizeof(m));
		op->used += sizeof(m);
		if (got > 0) {
			memset(to + got, 0, padded((uint64_t)got) - (uint64_t)got);
			op->used += padded((uint64_t)got);
		}
	}
	return n;
}

int64_t plain_send(struct op *op, const unsigned char *messages, uint64_t left)
{
	int64_t n = 0;

	while (left >= sizeof(struct cosy_message) && op->room - op->used >= sizeof(int32_t)) {
		struct cosy_message m;
		uint64_t bytes, some;
		ssize_t sent = 0;

		memcpy(&m, messages, sizeof(m));
		bytes = m.result > 0 ? (uint64_t)m.result : 0;
		if (padded(bytes) > left - sizeof(m))
			return n ? n : -EINVAL;
		op->status = plain_tick(op->budget);
		if (op->status)
			break;
		some = bytes < MESSAGE_MOST ? bytes : MESSAGE_MOST;
		if (bytes)
			sent = send(m.fd, messages + sizeof(m), some, MSG_DONTWAIT | MSG_NOSIGNAL);
		m.result = sent < 0 ? -errno : (int32_t)sent;
		memcpy(op->out + op->used, &m.result, sizeof(m.result));
		op->used += sizeof(m.result);
		messages += sizeof(m) + padded(bytes);
		left -= sizeof(m) + padded(bytes);
		n++;
	}
	return n;
}
