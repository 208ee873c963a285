/* SPDX-License-Identifier: MIT */
/* zlib's CRC-32 (RFC 1952, section 8), by nibbles: a table of 16. */
#ifndef COSY_CRC32_H
#define COSY_CRC32_H

#include <linux/types.h>
#include <stddef.h>

static inline __u32 crc32(const void *data, size_t n)
{
	static const __u32 table[16] = {
		0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
		0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
		0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
	};
	const __u8 *at = data;
	__u32 crc = ~0u;

	for (; n; n--, at++) {
		crc = table[(crc ^ *at) & 15] ^ crc >> 4;
		crc = table[(crc ^ *at >> 4) & 15] ^ crc >> 4;
	}
	return ~crc;
}

#endif
