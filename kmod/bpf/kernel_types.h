/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel structures that the directory scan reads: only the members it
 * needs, relocated by name when the program is loaded (CO-RE), so neither
 * their order here nor their offsets mean anything.
 */
#ifndef COSY_KERNEL_TYPES_H
#define COSY_KERNEL_TYPES_H

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

/* What bpf_helper_defs.h needs of <linux/bpf.h>, which clashes with relocated types. */
enum bpf_map_type { BPF_MAP_TYPE_TASK_STORAGE = 29 };
enum { BPF_F_NO_PREALLOC = 1, BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct hlist_node {
	struct hlist_node *next, **pprev;
};

struct hlist_head {
	struct hlist_node *first;
};

struct hlist_bl_node {
	struct hlist_bl_node *next, **pprev;
};

struct uid_gid_map {
	__u32 nr_extents;
};

struct mnt_idmap {
	struct uid_gid_map uid_map, gid_map;
};

struct user_namespace {
	int level;
};

typedef struct {
	__u32 val;
} kuid_t;

typedef struct {
	__u32 val;
} kgid_t;

typedef struct {
	__u64 val;
} kernel_cap_t;

struct cred {
	kuid_t fsuid;
	kernel_cap_t cap_effective;
	struct user_namespace *user_ns;
};

struct file_system_type {
	int fs_flags;
};

struct super_block {
	__u32 s_dev;
	unsigned char s_blocksize_bits;
	struct file_system_type *s_type;
	unsigned long s_flags;
	struct user_namespace *s_user_ns;
	void *s_fs_info;
};

struct address_space {
	unsigned long nrpages;
};

struct inode_operations {
	void *permission;
	void *getattr;
};

struct inode {
	__u16 i_mode;
	kuid_t i_uid;
	kgid_t i_gid;
	unsigned int i_flags;
	void *i_acl;
	void *i_default_acl;
	const struct inode_operations *i_op;
	struct super_block *i_sb;
	struct address_space *i_mapping;
	unsigned long i_ino;
	unsigned int __i_nlink;
	__u32 i_rdev;
	__s64 i_size;
	__s64 i_atime_sec, i_mtime_sec, i_ctime_sec;
	__u32 i_atime_nsec, i_mtime_nsec, i_ctime_nsec;
	__u8 i_blkbits;
	__u64 i_blocks;
};

struct qstr {
	__u32 len;
	const unsigned char *name;
};

struct seqcount {
	unsigned int sequence;
};

typedef struct seqcount seqcount_t;

struct seqcount_spinlock {
	seqcount_t seqcount;
};

typedef struct seqcount_spinlock seqcount_spinlock_t;

struct dentry {
	unsigned int d_flags;
	seqcount_spinlock_t d_seq;
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
	struct hlist_node d_sib;
	struct hlist_head d_children;
};

/* Eight bytes of a name at any address: the only array of words in a typed structure. */
union shortname_store {
	unsigned long words[5];
};

struct vfsmount {
	int mnt_flags;
	struct mnt_idmap *mnt_idmap;
};

struct mount {
	struct vfsmount mnt;
	int mnt_id;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	unsigned int f_mode;
	struct path f_path;
};

/* Its first member is a struct file *: the typed way to load one slot of an fd array. */
struct kiocb {
	struct file *ki_filp;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct thread_info {
	unsigned long syscall_work;
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int ptrace;
	const struct cred *cred;
	struct files_struct *files;
};

struct ext4_sb_info {
	unsigned int s_cluster_bits;
};

struct ext4_inode_info {
	__u64 i_file_acl;
	unsigned long i_flags;
	struct inode vfs_inode;
	unsigned int i_reserved_data_blocks;
	__u16 i_inline_off;
};

struct rb_root {
	void *rb_node;
};

struct simple_xattrs {
	struct rb_root rb_root;
};

struct shmem_sb_info {
	unsigned char huge;
};

struct shmem_inode_info {
	unsigned long alloced;
	unsigned long swapped;
	struct simple_xattrs xattrs;
	unsigned int fsflags;
	struct inode vfs_inode;
};

#pragma clang attribute pop

/* Their values move between releases: relocated by name. */
enum dentry_flags {
	DCACHE_OP_HASH = 1,
	DCACHE_OP_COMPARE = 2,
	DCACHE_OP_REVALIDATE = 4,
	DCACHE_DISCONNECTED = 8,
	DCACHE_OP_WEAK_REVALIDATE = 16,
	DCACHE_DENTRY_KILLED = 32,
	DCACHE_MOUNTED = 64,
	DCACHE_NEED_AUTOMOUNT = 128,
	DCACHE_MANAGE_TRANSIT = 256,
	DCACHE_NOKEY_NAME = 512,
	DCACHE_OP_REAL = 1024,
	DCACHE_PAR_LOOKUP = 2048,
	DCACHE_DENTRY_CURSOR = 4096,
};

enum syscall_work_bit {
	SYSCALL_WORK_BIT_SYSCALL_TRACEPOINT = 1,
};

/* Constants of the kernel that carry no type information; unchanged since Linux 5.x. */
#define S_IFMT 0170000
#define S_IFDIR 0040000
#define S_IFREG 0100000
#define S_NOATIME (1 << 1)
#define S_AUTOMOUNT (1 << 11)
#define S_DAX (1 << 13)
#define S_ENCRYPTED (1 << 14)
#define S_CASEFOLD (1 << 15)
#define SB_RDONLY (1 << 0)
#define SB_NOATIME (1 << 10)
#define SB_NODIRATIME (1 << 11)
#define SB_POSIXACL (1 << 16)
#define MNT_NOATIME 0x08
#define MNT_NODIRATIME 0x10
#define MNT_RELATIME 0x20
#define FMODE_READ 0x1
#define FMODE_PATH (1 << 14)
#define FS_MGTIME 64
#define I_CTIME_QUERIED (1u << 31)
#define MNT_READONLY 0x40
#define CAP_DAC_OVERRIDE 1
#define CAP_DAC_READ_SEARCH 2
/* ext4's on-disk flags that statx() reports: COMPR, IMMUTABLE, APPEND, NODUMP, ENCRYPT, VERITY */
#define EXT4_STATX_FLAGS 0x100874
#define EXT4_INLINE_DATA_FL 0x10000000

/* tmpfs': IMMUTABLE, APPEND, NODUMP */
#define SHMEM_STATX_FLAGS 0x70

#endif
