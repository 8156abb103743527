/* SPDX-License-Identifier: Apache-2.0
 *
 * The last snapshot of a cluster on disk: a first line that says what it is, one line for each object, and a last line
 * that says how many there were, so that a file cut short is never taken for a small cluster. It holds Secrets (those
 * that plugins name), so only its owner may read it. Written beside and renamed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/log.h"
#include "conf/digest.h"
#include "control/source_cluster.h"
#include "kube/json_scan.h"

enum { SNAPSHOT_MAX = 512 * 1024 * 1024, FORMAT = 1 };

struct cluster_snapshot {
    struct loop *loop;
    char *path, *key;
    uv_work_t work;
    struct strbuf writing, waiting;
    char *error, *said; /* of the write under way; what was logged last */
    bool busy, over;
};

/* Parents are made too; theirs is the usual mode. */
static void make_directories(const char *path)
{
    char *p = mem_strdup(path);
    for (char *slash = strchr(p + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(p, 0755);
        *slash = '/';
    }
    (void)mkdir(p, 0700);
    mem_free(p);
}

struct cluster_snapshot *cluster_snapshot_new(struct loop *loop, const char *directory, const char *key)
{
    struct cluster_snapshot *s = mem_zalloc(sizeof *s);
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(str_of(key), digest);
    s->loop = loop;
    s->key = mem_strdup(key);
    s->path = mem_printf("%s/cluster-%02x%02x%02x%02x%02x%02x.jsonl", directory, digest[0], digest[1], digest[2],
                         digest[3], digest[4], digest[5]);
    s->work.data = s;
    make_directories(directory);
    return s;
}

void cluster_snapshot_free(struct cluster_snapshot *s)
{
    s->over = true;
    while (s->busy)
        uv_run(&s->loop->uv, UV_RUN_ONCE);
    strbuf_free(&s->writing);
    strbuf_free(&s->waiting);
    mem_free(s->path);
    mem_free(s->key);
    mem_free(s->said);
    mem_free(s);
}

void cluster_snapshot_begin(struct strbuf *out, const char *key)
{
    strbuf_printf(out, "{\"weirClusterSnapshot\":%d,\"of\":", FORMAT);
    strbuf_add_json(out, str_of(key));
    strbuf_addz(out, "}\n");
}

void cluster_snapshot_add(struct strbuf *out, const char *kind, struct str object)
{
    strbuf_addz(out, "{\"kind\":");
    strbuf_add_json(out, str_of(kind));
    strbuf_addz(out, ",\"object\":");
    /* JSON has newlines between values only; they mean nothing. */
    for (size_t i = 0; i < object.n; i++)
        strbuf_addc(out, object.p[i] == '\n' || object.p[i] == '\r' ? ' ' : object.p[i]);
    strbuf_addz(out, "}\n");
}

/* ---- reading ---- */

static bool head_is_ours(const struct cluster_snapshot *s, struct str line)
{
    char *of = json_scan_string(json_get(line, "of"));
    bool ok = str_is(json_get(line, "weirClusterSnapshot"), "1") && of != NULL && strcmp(of, s->key) == 0;
    mem_free(of);
    return ok;
}

static size_t count_lines(struct str text)
{
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++)
        n += text.p[i] == '\n';
    return n;
}

/* The last line counts the lines before it. */
static bool is_complete(struct str text)
{
    if (text.n == 0 || text.p[text.n - 1] != '\n')
        return false;
    size_t at = text.n - 1;
    while (at > 0 && text.p[at - 1] != '\n')
        at--;
    uint64_t lines = 0;
    return str_to_u64(json_get(str_from(text, at), "lines"), UINT32_MAX, &lines) && lines + 1 == count_lines(text);
}

bool cluster_snapshot_read(struct cluster_snapshot *s, void (*each)(void *arg, struct str kind, struct str text),
                           void *arg, char **error)
{
    size_t n = 0;
    char *text = file_read_all(s->path, SNAPSHOT_MAX, &n, error);
    if (text == NULL)
        return false;
    struct str rest = str_span(text, n), line = str_split(&rest, '\n');
    bool ok = head_is_ours(s, line) && is_complete(str_span(text, n));
    if (!ok)
        *error = mem_printf("%s: not a whole snapshot of this cluster", s->path);
    while (ok && rest.n > 0) {
        line = str_split(&rest, '\n');
        char *kind = json_scan_string(json_get(line, "kind"));
        if (kind != NULL)
            each(arg, str_of(kind), json_get(line, "object"));
        mem_free(kind);
    }
    mem_free(text);
    return ok;
}

/* ---- writing ---- */

static void write_begin(struct cluster_snapshot *s);

static void write_work(uv_work_t *work)
{
    struct cluster_snapshot *s = work->data;
    s->error = NULL;
    if (!file_replace(s->path, strbuf_str(&s->writing), 0600, &s->error))
        ASSERT(s->error != NULL);
}

static void write_done(uv_work_t *work, int status)
{
    struct cluster_snapshot *s = work->data;
    (void)status;
    if (s->error != NULL && (s->said == NULL || strcmp(s->said, s->error) != 0))
        log_line(LOG_WARN, "kubernetes: the snapshot cannot be kept: %s: %s", s->path, s->error);
    mem_free(s->said);
    s->said = s->error;
    s->error = NULL;
    s->busy = false;
    strbuf_free(&s->writing);
    if (s->waiting.n > 0)
        write_begin(s);
}

static void write_begin(struct cluster_snapshot *s)
{
    s->writing = s->waiting;
    s->waiting = (struct strbuf){0};
    s->busy = true;
    ASSERT(uv_queue_work(&s->loop->uv, &s->work, write_work, write_done) == 0);
}

void cluster_snapshot_write(struct cluster_snapshot *s, struct strbuf *text)
{
    strbuf_printf(text, "{\"lines\":%zu}\n", count_lines(strbuf_str(text)));
    strbuf_free(&s->waiting);
    s->waiting = *text;
    *text = (struct strbuf){0};
    if (!s->busy)
        write_begin(s);
}
