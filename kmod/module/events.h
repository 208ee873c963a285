/* SPDX-License-Identifier: GPL-2.0 */
/* Tracepoint cosy:cosy_compound, the audit trail: each compound as it ends. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM cosy

#if !defined(COSY_EVENTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define COSY_EVENTS_H

#include <linux/cred.h>
#include <linux/tracepoint.h>
#include <linux/uidgid.h>

// clang-format off
TRACE_EVENT(cosy_compound,
	TP_PROTO(bool program, u32 nr, const struct cosy_outcome *outcome),
	TP_ARGS(program, nr, outcome),
	TP_STRUCT__entry(
		__field(bool, program)
		__field(u32, nr)
		__field(uid_t, uid)
		__field(int, status)
		__field(u64, ops)
		__field(u64, time_ns)
	),
	TP_fast_assign(
		__entry->program = program;
		__entry->nr = nr;
		__entry->uid = from_kuid(&init_user_ns, current_uid());
		__entry->status = outcome->status;
		__entry->ops = outcome->ops;
		__entry->time_ns = outcome->time_ns;
	),
	TP_printk("%s=%u uid=%u status=%d ops=%llu time_ns=%llu",
		__entry->program ? "program" : "fused", __entry->nr, __entry->uid,
		__entry->status, __entry->ops, __entry->time_ns)
);
// clang-format on

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE events
#include <trace/define_trace.h>
