// SPDX-License-Identifier: MIT
/*
 * The shim's verifier by itself: reads images from standard input, each behind
 * its length (32 bits), and prints one digit per image: 1 accepted, 0 refused.
 */
#include <stdio.h>
#include <stdlib.h>

#include "verify.h"

int main(void)
{
	__u32 size;

	while (fread(&size, sizeof(size), 1, stdin) == 1) {
		// Exactly so many bytes: a read beyond them is an error that the sanitizer sees.
		void *data = malloc(size ? size : 1);
		struct image image;

		if (!data || fread(data, 1, size, stdin) != size)
			return 1;
		putchar(image_verify(data, size, &image) ? '1' : '0');
		free(data);
	}
	return 0;
}
