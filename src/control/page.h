/* SPDX-License-Identifier: Apache-2.0
 *
 * The files of the page (src/control/page), which the build puts into the program.
 */
#ifndef WEIR_CONTROL_PAGE_H
#define WEIR_CONTROL_PAGE_H

#include <stddef.h>

enum { PAGE_FILES = 4 };
struct page_file {
    const char *name;
    const unsigned char *bytes;
    size_t n;
};
/* page.html is the first. */
extern const struct page_file page_files[PAGE_FILES];

#endif
