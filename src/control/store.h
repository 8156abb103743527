/* SPDX-License-Identifier: Apache-2.0
 *
 * The objects Weir knows, each at its newest good version. The unit of failure is the object: one that is bad keeps its
 * last good version and carries its errors; a file that does not parse keeps the objects it last gave. The store
 * decides nothing else.
 */
#ifndef WEIR_CONTROL_STORE_H
#define WEIR_CONTROL_STORE_H

#include "base/map.h"
#include "conf/resource.h"

struct store_object {
    enum kind kind;
    char *ns, *name;
    struct resource *good; /* one reference; NULL: never was good */
    struct diag diag;      /* of the newest text: errors (then `good` is older) and warnings */
    enum store_origin origin; /* of the newest text */
    char *file;            /* where the newest text stands; of other origins the key it was given under */
    unsigned line;
    uint64_t generation; /* counts changes of meaning */
    bool stale;          /* the newest text is bad: `good` is older */
    bool gap;            /* a plugin whose text was bad when the process started: no good version is known */
    bool seen;           /* mark of the scan going on */
    struct diag next;    /* of the scan going on; becomes diag */
    uint64_t missing_ms; /* since when no file names it; 0: one does */
};

struct store {
    struct map objects; /* "Kind/ns/name" -> struct store_object */
    struct map files;   /* path, or key of an origin's text -> struct store_file */
    uint64_t version;   /* goes up with every change of meaning or status */
    size_t missing;     /* objects that no file names any more, not yet taken away */
    bool whole;         /* resources of files keep their JSON (for the Kubernetes API); set before the first text */
    bool files_changed; /* a file's own errors are others than at the last settle */
};

/* How long an object must be named by no file before it is gone. A file that is being rewritten is empty, half there or
 * away for a moment; a plugin that went with it would let requests pass it. */
enum { STORE_GONE_MS = 100 };

/* The file's text as it is now; unreadable: text.p NULL and error says why. Does nothing when the bytes are those of
 * last time. */
void store_file_set(struct store *s, const char *path, struct str text, const char *error, const char *default_ns);
void store_file_remove(struct store *s, const char *path);
/* The same for texts that are no files: key names the text within its origin ("WasmPlugin/default/x"). Messages about it
 * have no place in front. An object that both an origin's text and a file name belongs to the origin's; one whose text
 * was removed is gone with the next settle, since no half-written file can be the reason. */
void store_text_set(struct store *s, enum store_origin origin, const char *key, struct str text,
                    const char *default_ns);
void store_text_remove(struct store *s, enum store_origin origin, const char *key);
/* Applies what the files say now to the objects; true when something changed, be it only an error text. Settle again
 * STORE_GONE_MS later while `missing` is not 0. now_ms is of any clock that does not begin at 0. */
bool store_settle(struct store *s, uint64_t now_ms);
const struct store_object *store_find(const struct store *s, enum kind kind, const char *ns, const char *name);
/* Errors of files that do not parse, one diag entry each. */
void store_file_errors(const struct store *s, struct diag *out);
size_t store_bad_count(const struct store *s);
/* What a fresh process cannot know: plugins and files that are bad and of which no good version was ever seen here.
 * Traffic would pass without them, so a process that starts with such a gap is not ready until it is mended; text that
 * goes bad later keeps its last good version and is no gap. */
void store_mark_gaps(struct store *s);
/* One line for each gap that is still there; true when there is any. */
bool store_write_gaps(const struct store *s, struct strbuf *out);
void store_free(struct store *s);

#define STORE_EACH(obj, store, wanted_kind)                                                                            \
    MAP_EACH (obj##_entry, &(store)->objects)                                                                          \
        for (struct store_object *obj = obj##_entry->value; obj != NULL; obj = NULL)                                   \
            if (obj->kind == (wanted_kind) && obj->good != NULL)

#endif
