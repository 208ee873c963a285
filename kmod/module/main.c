// SPDX-License-Identifier: GPL-2.0
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
/* The device: contexts, their buffers and programs, and the requests. */
#include <linux/file.h>
#include <linux/ktime.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "cosy.h"

#define CREATE_TRACE_POINTS
#include "events.h"

static unsigned int max_buffer_mib = 64;
module_param(max_buffer_mib, uint, 0644);
MODULE_PARM_DESC(max_buffer_mib, "largest buffer of one context");
static unsigned int max_total_mib = 512;
module_param(max_total_mib, uint, 0644);
MODULE_PARM_DESC(max_total_mib, "most memory in the buffers of all contexts");

static atomic_long_t total_pages;

/* --- buffers ---------------------------------------------------------------- */

static void pages_free(struct page **pages, size_t n)
{
	size_t i;

	for (i = 0; i < n && pages[i]; i++)
		__free_page(pages[i]);
	kvfree(pages);
	atomic_long_sub(n, &total_pages);
}

/* Zeroed pages, charged to the caller's control group. NULL: no memory. */
static struct page **pages_alloc(size_t n)
{
	struct page **pages;
	size_t i;

	if (atomic_long_add_return(n, &total_pages) > (long)READ_ONCE(max_total_mib)
							      << (20 - PAGE_SHIFT)) {
		atomic_long_sub(n, &total_pages);
		return NULL;
	}
	pages = kvcalloc(n, sizeof(*pages), GFP_KERNEL_ACCOUNT);
	if (!pages) {
		atomic_long_sub(n, &total_pages);
		return NULL;
	}
	for (i = 0; i < n; i++) {
		pages[i] = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN);
		if (!pages[i] || fatal_signal_pending(current)) {
			pages_free(pages, n);
			return NULL;
		}
		cond_resched();
	}
	return pages;
}

static void buffer_free(struct cosy_context *c)
{
	if (!c->buffer)
		return;
	vunmap(c->buffer);
	pages_free(c->pages, c->bytes >> PAGE_SHIFT);
}

static long setup(struct cosy_context *c, void __user *arg)
{
	struct cosy_setup setup;
	size_t bytes;
	void *buffer;

	if (copy_from_user(&setup, arg, sizeof(setup)))
		return -EFAULT;
	if (setup.abi != COSY_MODULE_ABI || setup.flags || !setup.buffer_bytes ||
	    setup.buffer_bytes > (u64)READ_ONCE(max_buffer_mib) << 20)
		return -EINVAL;
	if (c->buffer)
		return -EBUSY;
	bytes = PAGE_ALIGN(setup.buffer_bytes);
	setup.buffer_bytes = bytes;
	if (copy_to_user(arg, &setup, sizeof(setup)))
		return -EFAULT;
	c->pages = pages_alloc(bytes >> PAGE_SHIFT);
	if (!c->pages)
		return -ENOMEM;
	buffer = vmap(c->pages, bytes >> PAGE_SHIFT, VM_MAP | VM_USERMAP, PAGE_KERNEL);
	if (!buffer) {
		pages_free(c->pages, bytes >> PAGE_SHIFT);
		return -ENOMEM;
	}
	c->bytes = bytes;
	/* mmap looks at it without the lock */
	smp_store_release(&c->buffer, buffer);
	return 0;
}

static void buffer_unmapped(struct vm_area_struct *vma)
{
	struct cosy_context *c = vma->vm_file->private_data;

	cmpxchg(&c->user, vma->vm_start, 0);
}

static int buffer_split(struct vm_area_struct *vma, unsigned long at)
{
	return -EINVAL;
}

static const struct vm_operations_struct buffer_vm_ops = {
	.close = buffer_unmapped,
	.may_split = buffer_split,
};

/*
 * A door is one page without memory. It holds the file when the descriptor is
 * closed, and msync() leads from it to cosy_fsync().
 */
static const struct vm_operations_struct door_vm_ops = {};

static int door_mmap(struct vm_area_struct *vma)
{
	if (vma->vm_end - vma->vm_start != PAGE_SIZE || !(vma->vm_flags & VM_SHARED) ||
	    (vma->vm_flags & (VM_READ | VM_WRITE | VM_EXEC)))
		return -EINVAL;
	cosy_vm_flags_set(vma, VM_IO | VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	cosy_vm_flags_clear(vma, VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC);
	vma->vm_ops = &door_vm_ops;
	return 0;
}

static int cosy_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct cosy_context *c = file->private_data;
	u8 *buffer = smp_load_acquire(&c->buffer);
	int err;

	if (current->mm != c->mm)
		return -EPERM;
	if (vma->vm_pgoff >= COSY_DOOR >> PAGE_SHIFT)
		return door_mmap(vma);
	if (!buffer || vma->vm_pgoff || vma->vm_end - vma->vm_start != c->bytes ||
	    !(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	if (cmpxchg(&c->user, 0, vma->vm_start))
		return -EBUSY;
	/* a child gets no part in it, and it does not move or grow */
	cosy_vm_flags_set(vma, VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	err = remap_vmalloc_range(vma, buffer, 0);
	if (err) {
		WRITE_ONCE(c->user, 0);
		return err;
	}
	vma->vm_ops = &buffer_vm_ops;
	return 0;
}

/* --- programs ----------------------------------------------------------------- */

static long load(struct cosy_context *c, void __user *arg)
{
	struct cosy_program *program;
	struct cosy_load load;
	enum cosy_refusal why;
	u32 at;

	if (copy_from_user(&load, arg, sizeof(load)))
		return -EFAULT;
	if ((load.flags & ~COSY_LOAD_PURE) || load.reserved)
		return -EINVAL;
	for (at = 0; at < COSY_MAX_PROGRAMS && c->programs[at]; at++)
		;
	if (at == COSY_MAX_PROGRAMS)
		return -ENOMEM;
	load.program = at;
	load.error_at = 0;
	load.reason = COSY_REFUSED_LENGTH;
	program = NULL;
	if (load.n_insns && load.n_insns <= COSY_MAX_INSNS) {
		program = kvmalloc(struct_size(program, insns, load.n_insns), GFP_KERNEL_ACCOUNT);
		if (!program)
			return -ENOMEM;
		program->n = load.n_insns;
		program->flags = load.flags;
		if (copy_from_user(program->insns, (void __user *)load.insns,
				   load.n_insns * sizeof(*program->insns))) {
			kvfree(program);
			return -EFAULT;
		}
		/* the private copy: what is checked is what runs */
		why = cosy_verify(program->insns, program->n, program->flags, &load.error_at);
		load.reason = why;
	}
	if (copy_to_user(arg, &load, sizeof(load))) {
		kvfree(program);
		return -EFAULT;
	}
	if (load.reason) {
		kvfree(program);
		return -EINVAL;
	}
	c->programs[at] = program;
	return 0;
}

static struct cosy_program *program_of(const struct cosy_context *c, u32 number)
{
	if (number >= COSY_MAX_PROGRAMS)
		return NULL;
	return c->programs[array_index_nospec(number, COSY_MAX_PROGRAMS)];
}

static long unload(struct cosy_context *c, const void __user *arg)
{
	struct cosy_program *program;
	u32 number;

	if (copy_from_user(&number, arg, sizeof(number)))
		return -EFAULT;
	program = program_of(c, number);
	if (!program)
		return -ENOENT;
	c->programs[number] = NULL;
	kvfree(program);
	return 0;
}

/* --- running -------------------------------------------------------------------- */

static void ended(bool is_program, u32 nr, const struct cosy_budget *budget,
		  struct cosy_outcome *outcome)
{
	u64 now = ktime_get_ns();

	outcome->ops = budget->ops;
	/* the clocks of a virtual machine's CPUs may differ by milliseconds */
	outcome->time_ns = now > budget->start_ns ? now - budget->start_ns : 0;
	trace_cosy_compound(is_program, nr, outcome);
}

static long run(struct cosy_context *c, void __user *arg)
{
	const struct cosy_program *program;
	struct cosy_budget budget;
	struct cosy_run run;

	if (copy_from_user(&run, arg, sizeof(run)))
		return -EFAULT;
	if (run.flags & ~COSY_RUN_RESUME)
		return -EINVAL;
	program = program_of(c, run.program);
	if (!program)
		return -ENOENT;
	if ((run.flags & COSY_RUN_RESUME) && run.outcome.pc >= program->n)
		return -EINVAL;
	cosy_budget_init(&budget, &run.limits);
	cosy_interpret(c, program, &run, &budget);
	ended(true, run.program, &budget, &run.outcome);
	return copy_to_user(arg, &run, sizeof(run)) ? -EFAULT : 0;
}

static long fused(struct cosy_context *c, void __user *arg)
{
	struct cosy_budget budget;
	struct cosy_fused call;
	int status = 0;
	bool pure;

	if (copy_from_user(&call, arg, sizeof(call)))
		return -EFAULT;
	if ((call.flags & ~(COSY_FUSED_USER | COSY_FUSED_PURE)) || !cosy_fused_exists(call.op))
		return -EINVAL;
	pure = call.flags & COSY_FUSED_PURE;
	if (pure && !cosy_fused_is_pure(call.op))
		return -EINVAL;
	cosy_budget_init(&budget, &call.limits);
	call.used = 0;
	if (call.flags & COSY_FUSED_USER)
		call.result =
			cosy_fused_user(call.op, call.args, pure, &budget, &call.used, &status);
	else
		call.result = cosy_fused(c, call.op, call.args, pure, &budget, &call.used, &status);
	call.outcome.status = call.result < 0 ? call.result : status;
	call.outcome.pc = 0;
	ended(false, call.op, &budget, &call.outcome);
	return copy_to_user(arg, &call, sizeof(call)) ? -EFAULT : 0;
}

static long info(void __user *arg)
{
	struct cosy_info info = {
		.abi = COSY_MODULE_ABI,
		.features = cosy_calls_work() ? COSY_FEATURE_CALLS : 0,
		.max_buffer_bytes = (u64)READ_ONCE(max_buffer_mib) << 20,
	};

	cosy_budget_max(&info);
	return copy_to_user(arg, &info, sizeof(info)) ? -EFAULT : 0;
}

static long request(struct cosy_context *c, unsigned int cmd, void __user *arg)
{
	switch (cmd) {
	case COSY_IOC_SETUP:
		return setup(c, arg);
	case COSY_IOC_LOAD:
		return load(c, arg);
	case COSY_IOC_UNLOAD:
		return unload(c, arg);
	case COSY_IOC_RUN:
		return run(c, arg);
	case COSY_IOC_FUSED:
		return fused(c, arg);
	}
	return -ENOTTY;
}

/* For the caller, if it may. */
static long serve(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct cosy_context *c = file->private_data;
	long ret;

	if (current->mm != c->mm || cosy_is_watched())
		return -EPERM;
	if (!mutex_trylock(&c->lock))
		return -EBUSY;
	ret = request(c, cmd, (void __user *)arg);
	mutex_unlock(&c->lock);
	return ret;
}

static long cosy_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	long ret;

	if (cmd == COSY_IOC_INFO)
		return info((void __user *)arg);
	/* a program may close the very descriptor that it runs by */
	get_file(file);
	ret = serve(file, cmd, arg);
	fput(file);
	return ret;
}

/*
 * msync() of a door: `start` is the offset at which it was mapped. The caller of
 * fsync() and fdatasync() has no such range.
 */
static int cosy_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	if (start < COSY_DOOR || end - start != PAGE_SIZE - 1)
		return -EINVAL;
	return serve(file, COSY_IOC_FUSED, start - COSY_DOOR);
}

static int cosy_open_context(struct inode *inode, struct file *file)
{
	struct cosy_context *c = kzalloc(sizeof(*c), GFP_KERNEL_ACCOUNT);

	if (!c)
		return -ENOMEM;
	mutex_init(&c->lock);
	c->mm = current->mm;
	mmgrab(c->mm);
	file->private_data = c;
	return nonseekable_open(inode, file);
}

static int cosy_release(struct inode *inode, struct file *file)
{
	struct cosy_context *c = file->private_data;
	u32 i;

	buffer_free(c);
	if (c->reader)
		fput(c->reader);
	for (i = 0; i < COSY_MAX_PROGRAMS; i++)
		kvfree(c->programs[i]);
	mmdrop(c->mm);
	kfree(c);
	return 0;
}

static const struct file_operations cosy_fops = {
	.owner = THIS_MODULE,
	.open = cosy_open_context,
	.release = cosy_release,
	.unlocked_ioctl = cosy_ioctl,
	.mmap = cosy_mmap,
	.fsync = cosy_fsync,
};

static struct miscdevice cosy_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "cosy",
	.fops = &cosy_fops,
	.mode = 0660,
};

static int __init cosy_init(void)
{
	cosy_calls_init();
	if (!cosy_calls_work())
		pr_info("system call handlers not found: programs can make no calls\n");
	return misc_register(&cosy_device);
}

static void __exit cosy_exit(void)
{
	misc_deregister(&cosy_device);
	cosy_scratch_exit();
}

module_init(cosy_init);
module_exit(cosy_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Cosy: compounds of system calls in one crossing");
MODULE_AUTHOR("Cosy developers");
