// SPDX-License-Identifier: MIT
#include "stub.h"

static struct stub_table *tables[STUB_TABLES] AT_START;
static u32 n_tables AT_START;

// --- what stubs look at ----------------------------------------------------

void stub_table_open(struct stub_table *table)
{
	u32 n = n_tables;

	table->entry = cosy_entry;
	tables[n] = table;
	__atomic_store_n(&n_tables, n + 1, __ATOMIC_SEQ_CST);
	// Afterwards: what another thread changes meanwhile is either in here or comes by itself.
	memcpy(table->actions, cosy_actions, COSY_ACTIONS);
}

void action_change(u64 nr, u8 action)
{
	u32 n;

	__atomic_store_n(&cosy_actions[nr], action, __ATOMIC_SEQ_CST);
	n = __atomic_load_n(&n_tables, __ATOMIC_SEQ_CST);
	for (u32 i = 0; i < n; i++)
		__atomic_store_n(&tables[i]->actions[nr], action, __ATOMIC_RELAXED);
}

void actions_changed(void)
{
	for (u32 i = 0; i < n_tables; i++)
		memcpy(tables[i]->actions, cosy_actions, COSY_ACTIONS);
}

// --- building ----------------------------------------------------------------

// A stub as it grows.
struct code {
	u8 *at; // where it is written
	const u8 *runs_at;
};

static void emit(struct code *c, const void *bytes, u32 n)
{
	memcpy(c->at, bytes, n);
	c->at += n;
	c->runs_at += n;
}

static void emit32(struct code *c, u32 value)
{
	emit(c, &value, sizeof(value));
}

// An opcode, and how far `to` is from the instruction's end, `more` bytes on.
static void emit_to(struct code *c, const void *opcode, u32 n, const u8 *to, u32 more)
{
	emit(c, opcode, n);
	emit32(c, (u32)(to - (c->runs_at + 4 + more)));
}

// A short jump forward, which land() completes.
static u8 *emit_short(struct code *c, u8 opcode)
{
	u8 bytes[2] = { opcode, 0 };

	emit(c, bytes, sizeof(bytes));
	return c->at;
}

static void land(const struct code *c, u8 *from)
{
	from[-1] = (u8)(c->at - from);
}

void stub_build(u8 *to, const u8 *runs_at, const struct stub_site *site, const u8 *table)
{
	const u8 *actions = table + offsetof(struct stub_table, actions), *tail;
	u64 quad = (u64)(site->runs_at - (runs_at + STUB_SITE));
	struct code c = { to, runs_at };
	u8 *beyond = NULL, *wanted;
	u32 nr;

	if (site->moved) {
		emit(&c, "\x48\x3d", 2); // cmp $COSY_ACTIONS,%rax
		emit32(&c, COSY_ACTIONS);
		beyond = emit_short(&c, 0x73); // jae
		emit_to(&c, "\x4c\x8d\x1d", 3, actions, 0); // lea actions(%rip),%r11
		emit(&c, "\x41\x80\x3c\x03\x00", 5); // cmpb $0,(%r11,%rax)
	} else {
		memcpy(&nr, site->behind - 2 - sizeof(nr), sizeof(nr));
		emit(&c, "\xb8", 1); // mov $nr,%eax
		emit32(&c, nr);
		emit_to(&c, "\x80\x3d", 2, actions + nr, 1); // cmpb $0,actions+nr(%rip)
		emit(&c, "\x00", 1);
	}
	wanted = emit_short(&c, 0x75); // jne
	emit(&c, "\x0f\x05", STUB_SYSCALL); // syscall
	tail = c.runs_at;
	emit(&c, site->behind, site->moved);
	emit_to(&c, "\xe9", 1, site->runs_at + site->moved, 0); // jmp
	if (beyond)
		land(&c, beyond);
	land(&c, wanted);
	emit_to(&c, "\x48\x8d\x0d", 3, tail, 0); // lea tail(%rip),%rcx
	emit_to(&c, "\xff\x25", 2, table, 0); // jmp *entry(%rip)
	// Relative, as all of the stub: cached text runs at any address.
	memcpy(to + STUB_SITE, &quad, sizeof(quad));
}
