/* SPDX-License-Identifier: Apache-2.0
 *
 * Field tables: what an object of the API may hold, as data. One reader walks a node tree along such a table, fills a
 * struct by offsets and reports everything that is wrong, in the API server's words, each error at its own line. What a
 * table cannot say (two fields together) is said by the schema's finish function.
 *
 * Text that people see comes from these tables: unknown fields, required fields, enums, patterns, limits.
 */
#ifndef WEIR_CONF_SCHEMA_H
#define WEIR_CONF_SCHEMA_H

#include "base/diag.h"
#include "conf/format.h"
#include "conf/resource.h"
#include "conf/ydoc.h"

/* Where in a document: "spec.match[0].ports", chained on the stack and printed only when something is wrong. */
struct path {
    const struct path *up; /* NULL at the root */
    enum { PATH_FIELD, PATH_INDEX, PATH_KEY } type;
    struct str name; /* FIELD, KEY */
    size_t index;
};

struct reader {
    struct conf_memory *memory;  /* of the resource: what is read is copied there */
    struct conf_memory *scratch; /* of the document: gone once it is read */
    struct diag *diag;
    const char *file, *title; /* may be NULL */
    const struct node *root;  /* the whole object */
    struct meta *meta;        /* complete before spec is read */
    bool hide_values;         /* Secrets: no value may show in a message */
};

enum field_type {
    FIELD_STRING,   /* char *: NULL when absent, without NUL bytes */
    FIELD_BOOL,     /* bool */
    FIELD_INT,      /* an integer of `width` bytes */
    FIELD_ENUM,     /* an enum: index into names */
    FIELD_DURATION, /* int64_t, milliseconds */
    FIELD_OBJECT,   /* a struct in place (at may be 0: part of the same struct) */
    FIELD_POINTER,  /* pointer to a struct, NULL when absent */
    FIELD_OBJECTS,  /* pointer to the first struct, and a count */
    FIELD_STRINGS,  /* char **, and a count */
    FIELD_INTS,     /* pointer to the first uint16_t, and a count */
    FIELD_LABELS,   /* struct labels: strings by name */
    FIELD_NODE,     /* const struct node *, for a finish function; must be of node_type */
    FIELD_IGNORED,  /* part of the API that Weir has no use for: anything goes */
    FIELD_UNREAD,   /* part of the API that Weir does not honour yet: a warning (or the table's text) */
};

struct reader;
struct schema;
struct field {
    const char *name;
    enum field_type type;
    bool required;
    uint8_t width;               /* INT; negative numbers allowed when min < 0 */
    size_t at, count_at;         /* offsets */
    size_t has;                  /* HAS(type, member): a bool that becomes true when the field is there; 0: none */
    int64_t min, max;            /* INT: range; STRING, STRINGS: length in bytes; 0, 0: none */
    size_t min_items, max_items; /* OBJECTS, STRINGS, INTS, LABELS; max_items 0: 4096 */
    const struct format *format; /* STRING, STRINGS */
    const char *const *names;    /* ENUM; NULL-terminated */
    const struct schema *schema; /* OBJECT, POINTER, OBJECTS */
    const char *unique;          /* OBJECTS: the member that no two items share */
    bool is_set;                 /* STRINGS: no two items are the same */
    enum node_type node_type;    /* NODE */
    const char *text;            /* UNREAD: what to say instead of "is not supported yet and has no effect" */
};

struct schema {
    const struct field *fields;
    size_t field_count;
    size_t size;     /* of the struct that is filled, for POINTER and OBJECTS */
    size_t raw_size; /* 0: fields are offsets into that struct; else into a zeroed one of this size, which finish turns
                        into it */
    /* Called once the fields are read, also when some are wrong (they are zero then). raw == out when raw_size is 0. */
    void (*finish)(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out);
    size_t line, col; /* HAS(type, member) of unsigned members for the place; 0: none */
    bool open;        /* unknown fields are a warning instead of an error (metadata) */
};

#define HAS(type, member) (offsetof(type, member) + 1)
#define FIELDS(table)     .fields = (table), .field_count = ARRAY_LEN(table)

/* Reads the members of n along s into out. */
void schema_read(struct reader *r, const struct schema *s, const struct node *n, const struct path *path, void *out);

/* Messages. n says where; path may be NULL (the object itself). */
void schema_error(struct reader *r, const struct node *n, const struct path *path, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
void schema_warn(struct reader *r, const struct node *n, const struct path *path, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
void schema_report(struct reader *r, enum diag_level level, unsigned line, unsigned col, const struct path *path,
                   const char *text);
/* 'Invalid value: "x": ' + text, with the value as JSON (cut when long; left out for objects and Secrets). */
void schema_invalid(struct reader *r, const struct node *n, const struct path *path, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/* Invalid value: "string": spec.x in body must be of type integer: "string" */
void schema_wrong_type(struct reader *r, const struct node *n, const struct path *path, const char *wanted);
void path_write(struct strbuf *out, const struct path *path);

/* The value of a member if it has any, else n itself: the best place for a message about it. */
const struct node *schema_place(const struct node *n, const char *member);
/* A string node's text in the resource's memory; NULL, with a message, when it is no string or holds NUL bytes. */
char *schema_string(struct reader *r, const struct node *n, const struct path *path);
/* True when text has the form; else a message. */
bool schema_format(struct reader *r, const struct node *n, const struct path *path, struct str text,
                   const struct format *format);
/* Compiles a regular expression for the check alone; a message with the position when it is wrong. */
void schema_regex(struct reader *r, const struct node *n, const struct path *path, const char *pattern);

#endif
