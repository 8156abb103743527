/* SPDX-License-Identifier: Apache-2.0
 *
 * Resources from files and directories: reads them at start and whenever they change, by atomic rename, edit in place
 * or a ConfigMap's symlink swap. inotify tells when to look; looking is a scan of names, inodes and times, so that
 * nothing depends on which event came. A slow periodic scan covers file systems that send no events.
 */
#ifndef WEIR_CONTROL_SOURCE_DIR_H
#define WEIR_CONTROL_SOURCE_DIR_H

#include "control/store.h"
#include "io/loop.h"

struct source_dir;
/* paths as given on the command line; a missing one is an error of that path, and is looked for again; a directory that
 * goes away keeps what it last gave. changed runs after a scan that touched the store (store_settle has been called),
 * never before source_dir_new returns. */
struct source_dir *source_dir_new(struct loop *loop, struct store *store, const char *const *paths, size_t count,
                                  const char *default_ns, void (*changed)(void *arg), void *arg);
/* Looks now; true when the store changed. */
bool source_dir_scan(struct source_dir *d);
void source_dir_free(struct source_dir *d);

#endif
