// SPDX-License-Identifier: MIT
/*
 * serve FOLDER REQUESTS: answers HTTP requests for files of FOLDER on a free port of
 * the loopback, which it prints. A whole request is one crossing: accept, receive,
 * find the name, open, send the head, read and send until the end, close and close.
 * Names with a slash in them are not served.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cosy.h"

/* the buffer */
#define REQUEST 0
#define REQUEST_BYTES 4096
#define NAME (REQUEST + 5) /* behind "GET /" */
#define NAME_MOST 255
#define FOUND 8192
#define MISSING 8320
#define DATA 16384
#define DATA_BYTES (64 << 10)
#define CHUNKS_MOST (1 << 30)

static const char found[] = "HTTP/1.0 200 OK\r\n\r\n";
static const char missing[] = "HTTP/1.0 404 Not Found\r\n\r\n";

/* registers; calls take theirs from ARGS on */
enum {
	LISTEN = 1,
	FOLDER,
	CONNECTION,
	FILE_,
	SERVED,
	ZERO,
	AT,
	BYTE,
	BLANK,
	SLASH,
	GOT,
	IGNORED,
	LEFT
};
#define ARGS 16

/* send(connection, from, bytes), bytes in a register or, if that is 0, a number */
static void send_bytes(struct cosy_program *p, int from, int bytes, int64_t number)
{
	cosy_emit(p, COSY_I_MOV, ARGS, CONNECTION, 0, 0);
	cosy_set(p, ARGS + 1, from);
	if (bytes)
		cosy_emit(p, COSY_I_MOV, ARGS + 2, bytes, 0, 0);
	else
		cosy_set(p, ARGS + 2, number);
	cosy_set(p, ARGS + 3, MSG_NOSIGNAL);
	cosy_set(p, ARGS + 4, -1); // no address
	cosy_set(p, ARGS + 5, 0);
	cosy_call(p, IGNORED, SYS_sendto, ARGS);
}

static void accept_and_receive(struct cosy_program *p)
{
	cosy_emit(p, COSY_I_MOV, ARGS, LISTEN, 0, 0);
	cosy_set(p, ARGS + 1, -1);
	cosy_set(p, ARGS + 2, -1);
	cosy_set(p, ARGS + 3, SOCK_CLOEXEC);
	cosy_call(p, CONNECTION, SYS_accept4, ARGS);
}

/* The name ends at a blank, which becomes its NUL. Returns the jumps of those that are refused. */
static void find_name(struct cosy_program *p, uint32_t refused[2])
{
	uint32_t loop, end;

	cosy_set(p, AT, NAME);
	cosy_set(p, BLANK, ' ');
	cosy_set(p, SLASH, '/');
	cosy_set(p, LEFT, NAME_MOST);
	loop = cosy_loop_start(p);
	cosy_emit(p, COSY_I_LD8, BYTE, AT, 0, 0);
	end = cosy_jump(p, COSY_I_JEQ, BYTE, BLANK);
	refused[0] = cosy_jump(p, COSY_I_JEQ, BYTE, SLASH);
	cosy_emit(p, COSY_I_ADDI, AT, AT, 0, 1);
	cosy_loop_end(p, LEFT, loop);
	refused[1] = cosy_jump(p, COSY_I_JMP, 0, 0); // longer than any name
	cosy_land(p, end);
	cosy_emit(p, COSY_I_ST8, 0, AT, ZERO, 0);
}

static void send_file(struct cosy_program *p)
{
	uint32_t loop, done;

	send_bytes(p, FOUND, 0, sizeof(found) - 1);
	cosy_set(p, SERVED, 1);
	cosy_set(p, LEFT, CHUNKS_MOST);
	loop = cosy_loop_start(p);
	cosy_emit(p, COSY_I_MOV, ARGS, FILE_, 0, 0);
	cosy_set(p, ARGS + 1, DATA);
	cosy_set(p, ARGS + 2, DATA_BYTES);
	cosy_call(p, GOT, SYS_read, ARGS);
	done = cosy_jump(p, COSY_I_JSGE, ZERO, GOT); // the end, or an error
	send_bytes(p, DATA, GOT, 0);
	cosy_loop_end(p, LEFT, loop);
	cosy_land(p, done);
	cosy_call(p, IGNORED, SYS_close, FILE_);
}

static void write_program(struct cosy_program *p)
{
	uint32_t nobody, nothing, refused[2], absent, close_connection;

	cosy_set(p, ZERO, 0);
	cosy_set(p, SERVED, 0);
	accept_and_receive(p);
	nobody = cosy_jump(p, COSY_I_JSLT, CONNECTION, ZERO);
	cosy_emit(p, COSY_I_MOV, ARGS, CONNECTION, 0, 0);
	cosy_set(p, ARGS + 1, REQUEST);
	cosy_set(p, ARGS + 2, REQUEST_BYTES);
	cosy_set(p, ARGS + 3, 0);
	cosy_set(p, ARGS + 4, -1);
	cosy_set(p, ARGS + 5, -1);
	cosy_call(p, GOT, SYS_recvfrom, ARGS);
	nothing = cosy_jump(p, COSY_I_JSGE, ZERO, GOT);
	find_name(p, refused);
	cosy_emit(p, COSY_I_MOV, ARGS, FOLDER, 0, 0);
	cosy_set(p, ARGS + 1, NAME);
	cosy_set(p, ARGS + 2, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	cosy_set(p, ARGS + 3, 0);
	cosy_call(p, FILE_, SYS_openat, ARGS);
	absent = cosy_jump(p, COSY_I_JSLT, FILE_, ZERO);
	send_file(p);
	close_connection = cosy_jump(p, COSY_I_JMP, 0, 0);
	cosy_land(p, refused[0]);
	cosy_land(p, refused[1]);
	cosy_land(p, absent);
	send_bytes(p, MISSING, 0, sizeof(missing) - 1);
	cosy_land(p, close_connection);
	cosy_land(p, nothing);
	cosy_call(p, IGNORED, SYS_close, CONNECTION);
	cosy_land(p, nobody);
	cosy_exit(p);
}

static int listen_somewhere(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t bytes = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (void *)&address, bytes) || listen(fd, 16) ||
	    getsockname(fd, (void *)&address, &bytes))
		return -1;
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	return fd;
}

int main(int argc, char **argv)
{
	static struct cosy_program program;
	long requests = argc == 3 ? atol(argv[2]) : 0;
	struct cosy c;
	int folder, fd, number;

	if (requests < 1 || cosy_open(&c, DATA + DATA_BYTES, getenv("PLAIN") ? COSY_OPEN_PLAIN : 0))
		return 2;
	folder = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = listen_somewhere();
	write_program(&program);
	number = cosy_load(&c, &program, 0, NULL);
	if (folder < 0 || fd < 0 || number < 0) {
		fprintf(stderr, "serve: %s\n", strerror(number < 0 ? -number : errno));
		return 1;
	}
	memcpy(c.buffer + FOUND, found, sizeof(found));
	memcpy(c.buffer + MISSING, missing, sizeof(missing));
	while (requests--) {
		struct cosy_run run = { .program = (uint32_t)number };
		int err;

		run.regs[LISTEN] = (uint64_t)fd;
		run.regs[FOLDER] = (uint64_t)folder;
		do { // waiting may use up its time: the run goes on where it was
			err = cosy_run(&c, &run);
			run.flags = COSY_RUN_RESUME;
		} while (!err && (run.outcome.status == -EINTR || run.outcome.status == -ETIME));
		if (err || run.outcome.status) {
			fprintf(stderr, "serve: %s\n", strerror(err ? -err : -run.outcome.status));
			return 1;
		}
	}
	cosy_close(&c);
	return 0;
}
