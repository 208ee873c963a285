// SPDX-License-Identifier: GPL-2.0
/*
 * cosy-bpf-load: loads the directory scan, attaches it and pins it for everyone.
 * docs/bpf-executor.md describes what stands behind each check.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "constants.h"
#include "cosy_bpf.h"

#define BPFFS "/sys/fs/bpf"
#define BPFFS_MAGIC 0xcafe4a11
#define PIN_BUILD COSY_BPF_PIN_DIR "/build"
#define OBJECT_NAME "cosy_dirscan.bpf.o"
#define LOG_SIZE (1u << 24)
#define LOG_STATISTICS 4 /* the kernel's BPF_LOG_STATS */

enum exit_code {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_PERMISSION = 3,
	EXIT_KERNEL = 4,
};

#define PROGRAM "dirscan"
#define BUFFERS "buffers"
static bool verbose;

static int complain(int code, const char *format, ...)
{
	va_list args;

	fputs("cosy-bpf-load: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return code;
}

/* What libbpf complained of first: the reason, when the verifier gave none. */
static char first_warning[512];

static int print_libbpf(enum libbpf_print_level level, const char *format, va_list args)
{
	if (verbose)
		return vfprintf(stderr, format, args);
	if (level == LIBBPF_WARN && !*first_warning) {
		vsnprintf(first_warning, sizeof(first_warning), format, args);
		first_warning[strcspn(first_warning, "\n")] = 0;
	}
	return 0;
}

static void close_fd(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static void close_object(struct bpf_object **object)
{
	bpf_object__close(*object);
}

static void destroy_link(struct bpf_link **link)
{
	bpf_link__destroy(*link);
}

static void free_pointer(void *pointer)
{
	free(*(void **)pointer);
}

#define _cleanup_fd_ __attribute__((cleanup(close_fd)))
#define _cleanup_free_ __attribute__((cleanup(free_pointer)))
#define _cleanup_link_ __attribute__((cleanup(destroy_link)))
#define _cleanup_object_ __attribute__((cleanup(close_object)))

/* The whole object file; NULL with errno set. */
static void *read_object(const char *path, size_t *size)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return NULL;
	_cleanup_free_ char *data = malloc((size_t)st.st_size + 1);
	if (!data)
		return NULL;
	size_t done = 0;
	while (done < (size_t)st.st_size) {
		ssize_t n = read(fd, data + done, (size_t)st.st_size - done);

		if (n < 0)
			return NULL;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	*size = done;
	void *result = data;
	data = NULL;
	return result;
}

/* FNV-1a, 64 bit: names a build, keeps nobody out. */
static uint64_t hash_bytes(const void *data, size_t size)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ ((const uint8_t *)data)[i]) * 0x100000001b3;
	return hash;
}

/* Is exactly this build pinned? Only root can tell. */
static bool is_pinned(uint64_t build)
{
	_cleanup_fd_ int map = bpf_obj_get(PIN_BUILD);
	uint32_t key = 0;
	uint64_t pinned = 0;

	return map >= 0 && bpf_map_lookup_elem(map, &key, &pinned) == 0 && pinned == build &&
	       access(COSY_BPF_PIN_LINK, F_OK) == 0 && access(COSY_BPF_PIN_BUFFERS, F_OK) == 0;
}

/*
 * SELinux, Smack and TOMOYO decide on attributes per object, which the program
 * cannot see. AppArmor decides per process: the shim asks there.
 */
static int check_security_modules(void)
{
	static const char *const refused[] = { "selinux", "smack", "tomoyo" };
	char list[256] = "";
	_cleanup_fd_ int fd = open("/sys/kernel/security/lsm", O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && read(fd, list, sizeof(list) - 1) < 0)
		list[0] = 0;
	if (access("/sys/fs/selinux/enforce", F_OK) == 0)
		strcpy(list, "selinux");
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (strstr(list, refused[i]))
			return complain(
				EXIT_KERNEL,
				"%s is active: it may deny attributes that the program would "
				"give: programs run without this executor",
				refused[i]);
	return EXIT_OK;
}

/* Makes BPFFS and the pin folder; *lock is the folder, locked against another loader. */
static int prepare_folder(int *lock)
{
	struct statfs fs;
	struct stat st;

	if (statfs(BPFFS, &fs) < 0)
		return complain(EXIT_KERNEL, "no place for bpffs: %s: %s", BPFFS, strerror(errno));
	if ((unsigned long)fs.f_type != BPFFS_MAGIC &&
	    mount("bpf", BPFFS, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755") < 0)
		return complain(errno == EPERM ? EXIT_PERMISSION : EXIT_FAILED,
				"mount bpffs: %s: %s", BPFFS, strerror(errno));
	if (mkdir(COSY_BPF_PIN_DIR, 0755) < 0 && errno != EEXIST)
		return complain(EXIT_FAILED, "mkdir: %s: %s", COSY_BPF_PIN_DIR, strerror(errno));
	*lock = open(COSY_BPF_PIN_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*lock < 0 || fstat(*lock, &st) < 0)
		return complain(EXIT_FAILED, "open: %s: %s", COSY_BPF_PIN_DIR, strerror(errno));
	if (st.st_uid != 0)
		return complain(EXIT_FAILED, "not owned by root: %s: remove it and try again",
				COSY_BPF_PIN_DIR);
	if (fchmod(*lock, 0755) < 0 || flock(*lock, LOCK_EX) < 0)
		return complain(EXIT_FAILED, "chmod and lock: %s: %s", COSY_BPF_PIN_DIR,
				strerror(errno));
	return EXIT_OK;
}

static uint64_t ext4_state_xattr(void)
{
	struct btf *btf = btf__load_vmlinux_btf();
	uint64_t mask = 0;

	if (!btf)
		return 0;
	for (uint32_t id = 1; id < btf__type_cnt(btf) && !mask; id++) {
		const struct btf_type *type = btf__type_by_id(btf, id);

		if (!btf_is_enum(type) || type->name_off)
			continue;
		const struct btf_enum *values = btf_enum(type);
		for (unsigned int i = 0; i < btf_vlen(type); i++) {
			const char *name = btf__name_by_offset(btf, values[i].name_off);

			if (name && !strcmp(name, "EXT4_STATE_XATTR") && values[i].val < 32)
				mask = 1ULL << (32 + values[i].val);
		}
	}
	btf__free(btf);
	return mask;
}

static bool is_shmem_huge_forced(void)
{
	char text[128] = "";
	_cleanup_fd_ int fd =
		open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_RDONLY | O_CLOEXEC);

	return fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && strstr(text, "[force]");
}

static int set_constants(struct bpf_object *object)
{
	const struct cosy_constants constants = {
		.ext4_state_xattr = ext4_state_xattr(),
		.shmem_huge_forced = is_shmem_huge_forced(),
	};
	struct bpf_map *map;

	bpf_object__for_each_map(map, object)
	{
		if (strstr(bpf_map__name(map), ".rodata") &&
		    !bpf_map__set_initial_value(map, &constants, sizeof(constants)))
			return EXIT_OK;
	}
	return complain(EXIT_FAILED, "not the programs of this version: %s: build it again",
			OBJECT_NAME);
}

/* The last line of a verifier log that says something. */
static const char *refusal(char *log)
{
	static const char *const noise[] = { "processed ", "max_states", "-- ", "verification " };
	const char *last = "";

	for (char *save, *line = strtok_r(log, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		bool skip = false;

		for (size_t i = 0; i < sizeof(noise) / sizeof(noise[0]); i++)
			skip |= !strncmp(line, noise[i], strlen(noise[i]));
		if (!skip && *line)
			last = line;
	}
	return last;
}

static int pin_as(int fd, const char *name, mode_t mode)
{
	char fresh[PATH_MAX], path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", COSY_BPF_PIN_DIR, name);
	snprintf(fresh, sizeof(fresh), "%s/%s_new", COSY_BPF_PIN_DIR, name);
	unlink(fresh);
	if (bpf_obj_pin(fd, fresh) < 0 || chmod(fresh, mode) < 0 || rename(fresh, path) < 0) {
		int error = errno;

		unlink(fresh);
		return complain(EXIT_FAILED, "pin: %s: %s", path, strerror(error));
	}
	return EXIT_OK;
}

static int pin_all(struct bpf_object *object, uint64_t build)
{
	_cleanup_fd_ int map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "cosy_build", sizeof(uint32_t),
					      sizeof(build), 1, NULL);
	uint32_t key = 0;

	if (map < 0 || bpf_map_update_elem(map, &key, &build, BPF_ANY) < 0)
		return complain(EXIT_FAILED, "create map: %s", strerror(errno));
	struct bpf_program *program = bpf_object__find_program_by_name(object, PROGRAM);
	_cleanup_link_ struct bpf_link *link = bpf_program__attach(program);
	if (!link)
		return complain(EXIT_KERNEL, "attach: %s: %s", PROGRAM, strerror(errno));
	int code = pin_as(bpf_object__find_map_fd_by_name(object, BUFFERS), BUFFERS, 0666);
	if (!code)
		code = pin_as(bpf_link__fd(link), PROGRAM, 0600);
	return code ? code : pin_as(map, "build", 0600);
}

/* The tracepoint came with Linux 6.13, and so did memory of the caller in task storage. */
static bool has_tracepoint(void)
{
	struct btf *btf = btf__load_vmlinux_btf();
	bool found = btf && btf__find_by_name(btf, "btf_trace_task_prctl_unknown") > 0;

	btf__free(btf);
	return found;
}

static int load(const char *path)
{
	_cleanup_fd_ int lock = -1;
	size_t size = 0;
	_cleanup_free_ void *data = read_object(path, &size);

	if (!data)
		return complain(EXIT_FAILED, "read: %s: %s", path, strerror(errno));
	uint64_t build = hash_bytes(data, size);
	int code = prepare_folder(&lock);
	if (code)
		return code;
	if (is_pinned(build))
		return EXIT_OK;
	code = check_security_modules();
	if (code)
		return code;
	if (access("/sys/kernel/btf/vmlinux", R_OK) < 0)
		return complain(EXIT_KERNEL, "no BTF: /sys/kernel/btf/vmlinux: needs a kernel with "
					     "CONFIG_DEBUG_INFO_BTF");
	if (!has_tracepoint())
		return complain(EXIT_KERNEL, "no tracepoint task_prctl_unknown: this kernel is "
					     "too old: needs Linux 6.13");

	_cleanup_object_ struct bpf_object *object = bpf_object__open_mem(data, size, NULL);
	if (!object)
		return complain(EXIT_FAILED, "not a BPF object: %s: build it again", path);
	_cleanup_free_ char *log = calloc(1, LOG_SIZE);
	if (!log)
		return complain(EXIT_FAILED, "no memory");
	struct bpf_program *program = bpf_object__find_program_by_name(object, PROGRAM);
	if (!program || bpf_object__find_map_fd_by_name(object, BUFFERS) == -ENOENT)
		return complain(EXIT_FAILED, "no program %s: %s: build it again", PROGRAM, path);
	if (verbose)
		bpf_program__set_log_level(program, LOG_STATISTICS);
	else
		bpf_program__set_log_buf(program, log, LOG_SIZE);
	code = set_constants(object);
	if (code)
		return code;
	if (bpf_object__load(object) < 0) {
		int error = errno;

		if (error == EPERM)
			return complain(
				EXIT_PERMISSION,
				"load: not permitted: %s: needs CAP_BPF, CAP_PERFMON and no "
				"kernel lockdown",
				path);
		const char *reason = refusal(log);
		if (!*reason)
			reason = *first_warning ? first_warning : strerror(error);
		return complain(EXIT_KERNEL, "load: this kernel refuses the program: %s", reason);
	}
	return pin_all(object, build);
}

static int unload(void)
{
	static const char *const names[] = { "build", PROGRAM, BUFFERS };
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", COSY_BPF_PIN_DIR, names[i]);
		if (unlink(path) < 0 && errno != ENOENT)
			return complain(EXIT_FAILED, "unlink: %s: %s", path, strerror(errno));
	}
	if (rmdir(COSY_BPF_PIN_DIR) < 0 && errno != ENOENT)
		return complain(EXIT_FAILED, "rmdir: %s: %s", COSY_BPF_PIN_DIR, strerror(errno));
	return EXIT_OK;
}

/* Can this user run what is pinned? Needs no privilege. */
static int check(void)
{
	static struct cosy_bpf_run run __attribute__((aligned(128)));
	struct cosy_bpf_buffers buffers = { .run = &run };
	_cleanup_fd_ int map = bpf_obj_get(COSY_BPF_PIN_BUFFERS);

	if (map < 0)
		return complain(errno == EACCES || errno == EPERM ? EXIT_PERMISSION : EXIT_FAILED,
				"not loaded: %s: %s: run cosy-bpf-load as root",
				COSY_BPF_PIN_BUFFERS, strerror(errno));
	_cleanup_fd_ int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (self < 0 || bpf_map_update_elem(map, &self, &buffers, BPF_ANY) < 0)
		return complain(EXIT_FAILED, "register memory: %s: %s", COSY_BPF_PIN_BUFFERS,
				strerror(errno));
	run.cookie = 1;
	run.status = COSY_BPF_NOT_RUN;
	prctl(COSY_BPF_OPTION, run.cookie, -1, 0, 0);
	if (run.status == COSY_BPF_NOT_RUN)
		return complain(EXIT_FAILED,
				"it does not answer: %s: another version is loaded, or none: run "
				"cosy-bpf-load as root",
				COSY_BPF_PIN_DIR);
	return EXIT_OK;
}

static void print_help(void)
{
	puts("Usage: cosy-bpf-load [--verbose] [OBJECT]\n"
	     "       cosy-bpf-load --check | --unload\n"
	     "Load the eBPF executor and pin it in " COSY_BPF_PIN_DIR " for all users.\n"
	     "OBJECT defaults to " OBJECT_NAME " beside this program.\n"
	     "\n"
	     "  --check    is it loaded, and may I run it? (needs no root)\n"
	     "  --unload   remove it; programs that run go on without\n"
	     "  --verbose  print libbpf's messages and the verifier's log\n"
	     "  --help     print this text\n"
	     "\n"
	     "Exit: 0 ok, 1 failed, 2 usage, 3 not permitted, 4 this kernel cannot.");
}

/* OBJECT_NAME in the folder of this program. */
static bool default_object(char *path, size_t size)
{
	ssize_t length = readlink("/proc/self/exe", path, size);

	if (length <= 0 || (size_t)length >= size)
		return false;
	path[length] = 0;
	char *slash = strrchr(path, '/');
	if (!slash || (size_t)(slash + 1 - path) + sizeof(OBJECT_NAME) > size)
		return false;
	strcpy(slash + 1, OBJECT_NAME);
	return true;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "check", no_argument, NULL, 'c' },
		{ "unload", no_argument, NULL, 'u' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{},
	};
	char path[PATH_MAX];
	int action = 'l', option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'h') {
			print_help();
			return EXIT_OK;
		}
		if (option == '?')
			return EXIT_USAGE;
		if (option == 'v')
			verbose = true;
		else if (action != 'l')
			return complain(EXIT_USAGE, "--check and --unload exclude each other");
		else
			action = option;
	}
	if (argc - optind > (action == 'l'))
		return complain(EXIT_USAGE, "too many arguments: %s: see --help", argv[argc - 1]);
	libbpf_set_print(print_libbpf);
	if (action == 'c')
		return check();
	if (geteuid() != 0)
		return complain(EXIT_PERMISSION, "not permitted: %s: run it as root",
				COSY_BPF_PIN_DIR);
	if (action == 'u')
		return unload();
	if (optind < argc)
		return load(argv[optind]);
	if (!default_object(path, sizeof(path)))
		return complain(EXIT_FAILED, "cannot find %s: give its path", OBJECT_NAME);
	return load(path);
}
