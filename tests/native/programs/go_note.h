/* SPDX-License-Identifier: MIT */
/* What Go's linker leaves in a program or library (cmd/internal/buildid). */
__asm__(".pushsection .note.go.buildid, \"a\", @note\n"
	".balign 4\n"
	".long 4, 8, 4\n"
	".asciz \"Go\\0\"\n"
	".ascii \"build id\"\n"
	".popsection\n");
