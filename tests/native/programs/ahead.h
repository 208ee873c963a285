/* SPDX-License-Identifier: MIT */
/* A program that walks a tree and does something in between; ahead_kinds.c says what. */
#ifndef AHEAD_H
#define AHEAD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define EARLY 70 /* directories in which nothing happens */
#define ONCE 90 /* before what can happen only once */
#define LIST 32768 /* bytes of entries at a time */
#define MOST_NAMES 4096
#define DIRECTORY 4 /* type of an entry */

struct entry {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

struct kind {
	const char *name;
	void (*begin)(const char *tree);
	/* A directory was opened; some of its entries were read; all. */
	void (*opened)(int fd, int parent, const char *name);
	void (*listed)(int fd, const struct entry *list, long bytes);
	void (*ended)(int fd);
	/* This child directory comes next; after it the other, if not NULL. */
	void (*next)(int fd, const char *name, const char *after);
	void (*finish)(const char *tree);
	bool keeps; /* descriptors open */
	int every; /* so many directories something happens; 0: two */
	long us; /* to compute before each directory */
};

/* By name; ended by one without. */
extern const struct kind kinds[], news_kinds[];
extern int n_directories; /* opened so far */

/* Ends the program with a line when `failed`. */
void check(bool failed, const char *what);
/* Busy for so long without a single system call. */
void compute(long us);
unsigned sum(const void *at, long n);
/* One line: the number that a call returned and what it wrote, or its error. */
void say(const char *what, long ret, const void *data);
long entries(int fd, void *buf, size_t size);
/* All that is left of a directory, so many bytes at a time. */
void read_on(int fd, const char *what, size_t size);

#endif
