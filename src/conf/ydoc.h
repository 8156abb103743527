/* SPDX-License-Identifier: Apache-2.0
 *
 * A document as a tree of nodes, each with the place it came from: YAML 1.1 with the scalar rules of Kubernetes' tools
 * (sigs.k8s.io/yaml), or JSON. Aliases share nodes, so the tree is a graph without cycles: whoever walks it is bounded
 * by the node cap below, which counts an aliased subtree each time it appears.
 */
#ifndef WEIR_CONF_YDOC_H
#define WEIR_CONF_YDOC_H

#include "conf/memory.h"

enum { YDOC_MAX_DEPTH = 64, YDOC_MAX_NODES = 1000000, YDOC_MAX_ALIAS_BYTES = 16 * 1024 * 1024, YDOC_MAX_PROBLEMS = 50 };

/* NODE_INT is what fits 64 bits signed; other numbers are NODE_FLOAT, always finite. */
enum node_type { NODE_NULL, NODE_BOOL, NODE_INT, NODE_FLOAT, NODE_STRING, NODE_LIST, NODE_MAP };

struct node;
struct member {
    struct str key;
    struct node *value;
    unsigned line, col; /* of the key */
};
struct node {
    enum node_type type;
    unsigned line, col; /* 1-based */
    uint32_t height;    /* 1 for a scalar */
    uint32_t weight;    /* nodes of the subtree, shared ones as often as they appear */
    uint64_t bytes;     /* text of the subtree, likewise */
    union {
        bool boolean;
        int64_t integer;
        double number;
        struct str string; /* NUL-terminated; may hold NUL bytes */
        struct {
            struct node **items;
            size_t count;
        } list;
        struct {
            struct member *members; /* no key twice */
            size_t count;
        } map;
    } u;
};

/* What is wrong with one document though it parses: duplicate keys and the like. */
struct ydoc_problem {
    unsigned line, col;
    char *message; /* in the document's memory */
};
struct ydoc {
    struct node *root; /* NULL for an empty document */
    struct ydoc_problem problems[YDOC_MAX_PROBLEMS];
    size_t problem_count;
};

enum ydoc_result { YDOC_DOCUMENT, YDOC_END, YDOC_ERROR };
struct ydoc_stream;

/* Borrows text until ydoc_close. */
struct ydoc_stream *ydoc_open(struct str text);
/* The next document, its nodes in memory. After YDOC_ERROR (see ydoc_error) nothing follows. */
enum ydoc_result ydoc_next(struct ydoc_stream *s, struct conf_memory *memory, struct ydoc *out);
const char *ydoc_error(const struct ydoc_stream *s, unsigned *line, unsigned *col);
void ydoc_close(struct ydoc_stream *s);

/* NULL when n is no map or has no such member. */
const struct member *node_member(const struct node *n, struct str key);
/* As node_member, its value; NULL too when the value is null. */
const struct node *node_get(const struct node *n, const char *key);
/* The name Kubernetes' messages have for a type: "object", "array", "string", "integer", "number", "boolean", "null".
 */
const char *node_type_name(const struct node *n);
/* A number without a fraction, of any size. */
bool node_is_whole(const struct node *n);
/* Whole numbers, also those written as 5.0; false for anything else and beyond 64 bits. */
NODISCARD bool node_integer(const struct node *n, int64_t *out);

/* For the readers of ydoc.c, yscalar.c and json_text.c. */
struct node *node_new(struct conf_memory *memory, enum node_type type, unsigned line, unsigned col);
struct node *node_new_string(struct conf_memory *memory, struct str text, unsigned line, unsigned col);
void ydoc_add_problem(struct ydoc *d, struct conf_memory *memory, unsigned line, unsigned col, const char *fmt, ...)
    PRINTF_LIKE(5, 6);
/* Sets height, weight and bytes of a list or map whose children are complete. False when the subtree is too large. */
NODISCARD bool node_seal(struct node *n);
/* Reports every key that appears twice and keeps its first value. */
void node_refuse_duplicates(struct ydoc *d, struct conf_memory *memory, struct node *map);

/* yscalar.c: tag may be NULL. Plain scalars go through the YAML 1.1 table, quoted ones are strings. */
struct node *yscalar_read(struct ydoc *d, struct conf_memory *memory, struct str text, const char *tag, bool plain,
                          unsigned line, unsigned col);
/* Key of a map: text of any scalar but null. False when it cannot be one. */
NODISCARD bool yscalar_key(struct conf_memory *memory, const struct node *n, struct str *key);

/* json_text.c: one JSON value from *at on, spaces skipped before and after. False when it is no JSON (YAML may still
 * be). */
NODISCARD bool json_text_read(struct ydoc *d, struct conf_memory *memory, struct str text, size_t *at, unsigned *line,
                              size_t *line_start);

#endif
