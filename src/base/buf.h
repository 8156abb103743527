/* SPDX-License-Identifier: Apache-2.0
 *
 * struct buf: a queue of byte slices over reference-counted chunks, so that a body passes from socket to
 * socket without being copied. Chunks come from a pool that belongs to one worker: nothing here is
 * thread-safe, and a chunk never leaves its worker. A struct buf may point into itself: it must not be copied or moved.
 *
 *      buf: [slice]-[slice]-[slice]
 *              |       |       |
 *           chunk A  chunk A  chunk B      (16 KiB each, refcounted, back to the pool at zero)
 */
#ifndef WEIR_BASE_BUF_H
#define WEIR_BASE_BUF_H

#include <sys/uio.h>

#include "base/list.h"
#include "base/str.h"

enum { CHUNK_SIZE = 16 * 1024 };

struct chunk_pool;
struct chunk {
    struct chunk_pool *pool;
    struct chunk *next_free;
    uint32_t refs;
    uint32_t used; /* bytes written so far; only the newest slice may grow into the rest */
    char data[];   /* CHUNK_SIZE bytes */
};

/* keep: free chunks kept for reuse at most. Charges budget.h for every chunk it takes from the system. */
struct chunk_pool *chunk_pool_new(size_t keep);
/* Every chunk must be back. */
void chunk_pool_free(struct chunk_pool *pool);
/* Gives free chunks above n back to the system. */
void chunk_pool_trim(struct chunk_pool *pool, size_t n);
/* One reference for the caller. */
struct chunk *chunk_get(struct chunk_pool *pool);
void chunk_ref(struct chunk *c);
void chunk_unref(struct chunk *c);

struct slice {
    struct chunk *chunk; /* one reference */
    char *p;
    uint32_t n;
};

struct buf {
    struct chunk_pool *pool;
    struct slice *slices; /* ring of cap slices beginning at first */
    uint32_t first, count, cap;
    size_t n;                /* bytes in all */
    struct slice inline_slices[4];
};

void buf_init(struct buf *b, struct chunk_pool *pool);
/* Drops everything; b may be used again. */
void buf_clear(struct buf *b);
/* As buf_clear, and frees what buf owns. */
void buf_fini(struct buf *b);

/* Copies s to the end, into free room of the last chunk where it has some. */
void buf_append(struct buf *b, struct str s);
/* Writable room at the end, at least min bytes (min <= CHUNK_SIZE), in one piece; follow by buf_commit. */
char *buf_reserve(struct buf *b, size_t min, size_t *room);
void buf_commit(struct buf *b, size_t n);
/* Appends s, which lies inside chunk c, without copying; takes a reference on c. */
void buf_append_slice(struct buf *b, struct chunk *c, struct str s);
/* Moves the first n (<= src->n) bytes of src to the end of dst; no byte is copied, except that pieces below
 * 512 bytes may be, to keep slices few. Both belong to the same pool. */
void buf_move(struct buf *dst, struct buf *src, size_t n);
/* Appends all of src to dst, and leaves it in src: both share the chunks, except of pieces below 512 bytes. Both belong
 * to the same pool. */
void buf_share(struct buf *dst, const struct buf *src);
/* Moves everything of src to the FRONT of dst. */
void buf_prepend(struct buf *dst, struct buf *src);
/* Drops the first n (<= b->n) bytes. */
void buf_consume(struct buf *b, size_t n);
/* Copies [start, start+n) to out; the range must lie inside. */
void buf_copy_out(const struct buf *b, size_t start, size_t n, void *out);
/* Replaces [start, start+size) by data; start + size <= b->n. */
void buf_splice(struct buf *b, size_t start, size_t size, struct str data);
/* First slice, empty when b is. Valid until the buf changes. */
struct str buf_front(const struct buf *b);
/* Makes the first n (<= b->n, <= CHUNK_SIZE) bytes contiguous and returns them. */
struct str buf_pullup(struct buf *b, size_t n);
/* Fills at most max iovecs from the front; returns how many. */
int buf_iovec(const struct buf *b, struct iovec *iov, int max);

#endif
