// SPDX-License-Identifier: MIT
/*
 * sockets [plain]: accept, receive and send for many sockets at once do what the calls
 * do, one by one, in the kernel or as plain calls. Says what was not so.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cosy.h"

#define BYTES (1u << 20)
#define IN 0u
#define OUT (512u << 10)
#define CLIENTS 20
#define LONGEST 5000

static struct cosy c;
static int checks;

static void same(const char *what, long long got, long long expected)
{
	checks++;
	if (got == expected)
		return;
	printf("%s: %lld, not %lld\n", what, got, expected);
	exit(1);
}

static struct cosy_fused ask(struct cosy_fused call)
{
	same("ask", cosy_fused(&c, &call), 0);
	return call;
}

static struct cosy_fused accept_call(int listening, uint64_t want, uint64_t room)
{
	return ask((struct cosy_fused){ .op = COSY_OP_ACCEPT,
					.args = { (unsigned int)listening, want, OUT, room } });
}

static struct cosy_fused receive_call(int n, uint64_t room, uint64_t most)
{
	return ask((struct cosy_fused){
		.op = COSY_OP_RECEIVE,
		.args = { 0, 0, OUT, room, IN, (uint64_t)n * sizeof(int32_t), most } });
}

static struct cosy_fused send_call(uint64_t from, uint64_t bytes, uint64_t room)
{
	return ask((struct cosy_fused){ .op = COSY_OP_SEND,
					.args = { 0, 0, OUT, room, from, bytes } });
}

static int32_t number(uint64_t at)
{
	int32_t n;

	memcpy(&n, c.buffer + at, sizeof(n));
	return n;
}

static uint64_t behind(uint64_t at)
{
	const struct cosy_message *m = (const void *)(c.buffer + at);

	return at + sizeof(*m) + (m->result > 0 ? ((uint64_t)m->result + 7) / 8 * 8 : 0);
}

static int listen_somewhere(struct sockaddr_in *address)
{
	socklen_t bytes = sizeof(*address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	*address = (struct sockaddr_in){ .sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	if (fd < 0 || bind(fd, (void *)address, bytes) || listen(fd, 64) ||
	    getsockname(fd, (void *)address, &bytes)) {
		perror("listen");
		exit(1);
	}
	return fd;
}

static int connect_to(const struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || connect(fd, (const void *)address, sizeof(*address))) {
		perror("connect");
		exit(1);
	}
	return fd;
}

/* Every client says its number so many times. */
static int text(int client, char *to)
{
	int bytes = 1 + client * 257 % LONGEST;

	memset(to, 'a' + client, (size_t)bytes);
	return bytes;
}

static void check_accept(int listening, const struct sockaddr_in *address, int *clients,
			 int *served)
{
	struct cosy_fused call;

	same("nobody", accept_call(listening, 0, 4096).result, -EAGAIN);
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = connect_to(address);
	call = accept_call(listening, COSY_WANT_NONBLOCK | COSY_WANT_CLOEXEC, 8);
	same("room for two", call.result, 2);
	same("used", (long long)call.used, 8);
	served[0] = number(OUT);
	served[1] = number(OUT + 4);
	call = accept_call(listening, COSY_WANT_NONBLOCK | COSY_WANT_CLOEXEC, 4096);
	same("the others", call.result, CLIENTS - 2);
	for (int i = 2; i < CLIENTS; i++)
		served[i] = number(OUT + 4 * (uint64_t)(i - 2));
	for (int i = 0; i < CLIENTS; i++) {
		same("close-on-exec", fcntl(served[i], F_GETFD), FD_CLOEXEC);
		same("nonblocking", fcntl(served[i], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	}
	same("no socket", accept_call(0, 0, 4096).result, -ENOTSOCK);
	same("no descriptor", accept_call(12345, 0, 4096).result, -EBADF);
	same("flags", accept_call(listening, COSY_WANT_AT, 4096).result, -EINVAL);
	same("not listening", accept_call(served[0], 0, 4096).result, -EINVAL);
	fcntl(listening, F_SETFL, 0);
	same("it would wait", accept_call(listening, 0, 4096).result, -EINVAL);
	fcntl(listening, F_SETFL, O_NONBLOCK);
}

static void check_receive(const int *clients, const int *served)
{
	char said[LONGEST];
	struct cosy_fused call;
	uint64_t at = OUT;

	for (int i = 0; i < CLIENTS; i++) {
		int bytes = text(i, said);

		if (i != 3) // has nothing to say
			same("said", write(clients[i], said, (size_t)bytes), bytes);
	}
	memcpy(c.buffer + IN, served, CLIENTS * sizeof(int32_t));
	memcpy(c.buffer + IN + 4 * CLIENTS, &(int32_t){ 0 }, 4); // no socket
	memset(c.buffer + OUT, 0xff, BYTES - OUT);
	call = receive_call(CLIENTS + 1, 300000, LONGEST);
	same("received", call.result, CLIENTS + 1);
	for (int i = 0; i < CLIENTS; i++) {
		const struct cosy_message *m = (const void *)(c.buffer + at);
		int bytes = text(i, said);

		same("of whom", m->fd, served[i]);
		same("how much", m->result, i == 3 ? -EAGAIN : bytes);
		if (i != 3)
			same("what", memcmp(m + 1, said, (size_t)bytes), 0);
		for (uint64_t k = at + sizeof(*m) + (uint64_t)(i == 3 ? 0 : bytes); k < behind(at);
		     k++)
			same("padding", c.buffer[k], 0);
		at = behind(at);
	}
	same("no socket", ((const struct cosy_message *)(c.buffer + at))->result, -ENOTSOCK);
	at = behind(at);
	same("used", (long long)call.used, (long long)(at - OUT));
	same("untouched behind", c.buffer[at], 0xff);
	same("no room for one", receive_call(2, 4096, LONGEST).result, -ENOSPC);
	same("nothing asked", receive_call(0, 4096, LONGEST).result, 0);
	same("room for one", receive_call(2, 5008, LONGEST).result, 1);
}

static void check_send(const int *clients, const int *served)
{
	char heard[LONGEST + 1], said[LONGEST];
	struct cosy_message *m;
	struct cosy_fused call;
	uint64_t at = IN;

	for (int i = 0; i < CLIENTS; i++) {
		m = (void *)(c.buffer + at);
		m->fd = served[i];
		m->result = i == 5 ? -EAGAIN : text(i, (char *)(m + 1));
		at = behind(at);
	}
	call = send_call(IN, at - IN, 4096);
	same("sent", call.result, CLIENTS);
	for (int i = 0; i < CLIENTS; i++) {
		int bytes = text(i, said);

		same("bytes sent", number(OUT + 4 * (uint64_t)i), i == 5 ? 0 : bytes);
		if (i == 5)
			continue;
		same("heard", recv(clients[i], heard, (size_t)bytes, MSG_WAITALL), bytes);
		same("the same", memcmp(heard, said, (size_t)bytes), 0);
	}
	same("room for two", send_call(IN, at - IN, 8).result, 2);
	m = (void *)(c.buffer + IN);
	*m = (struct cosy_message){ .fd = served[0], .result = 100 };
	same("cut", send_call(IN, sizeof(*m) + 96, 4096).result, -EINVAL);
	same("no header", send_call(IN, sizeof(*m) - 1, 4096).result, 0);
	shutdown(served[0], SHUT_WR);
	same("closed", send_call(IN, sizeof(*m) + 104, 4096).result, 1); // and no SIGPIPE
	same("by what", number(OUT), -EPIPE);
}

static void check_refusals(int listening)
{
	struct cosy_fused call = accept_call(listening, 0, 4096);

	same("nobody", call.result, -EAGAIN);
	call.args[2] = BYTES;
	same("outside", ask(call).result, -EFAULT);
	call.args[2] = OUT + 4;
	same("not aligned", ask(call).result, -EFAULT);
	for (uint32_t op = COSY_OP_ACCEPT; op <= COSY_OP_SEND; op++) {
		struct cosy_fused pure = { .op = op, .flags = COSY_FUSED_PURE };

		same("pure", cosy_fused(&c, &pure), -EINVAL);
	}
	call = (struct cosy_fused){ .op = COSY_OP_RECEIVE, .flags = COSY_FUSED_USER };
	same("memory of the caller", ask(call).result, -EINVAL);
}

int main(int argc, char **argv)
{
	int clients[CLIENTS], served[CLIENTS], listening;
	struct sockaddr_in address;
	bool plain = argc > 1 && !strcmp(argv[1], "plain");

	if (cosy_open(&c, BYTES, plain ? COSY_OPEN_PLAIN : 0) || cosy_in_kernel(&c) == plain) {
		puts("no module");
		return 1;
	}
	close(0);
	same("a file as descriptor 0", open("/", O_RDONLY), 0);
	listening = listen_somewhere(&address);
	check_accept(listening, &address, clients, served);
	check_receive(clients, served);
	check_send(clients, served);
	check_refusals(listening);
	printf("%d checks\n", checks);
	return 0;
}
