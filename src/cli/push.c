/* SPDX-License-Identifier: Apache-2.0
 *
 * weir push: a module into a registry, as an image or an artifact.
 */
#include <stdio.h>

#include "base/file.h"
#include "cli/registry_options.h"
#include "conf/number.h"
#include "fetch/credentials.h"
#include "fetch/fetch.h"
#include "fetch/push.h"

enum { CHUNK_MIN = 64 * 1024 };

static const char help_text[] =
    "usage: weir push [OPTION...] FILE.wasm REF\n\n"
    "Puts a Wasm module into a registry. The same module gives the same digest.\n"
    "Credentials are those of docker login ($DOCKER_CONFIG/config.json or ~/.docker/config.json).\n\n"
    "  --layout image|artifact    image (default): one tar+gzip layer with plugin.wasm, which Istio reads too;\n"
    "                             artifact: the CNCF's layout, one layer application/wasm\n"
    "  --annotation KEY=VALUE     of the manifest; may be given more than once\n"
    "  --chunk-size SIZE          upload blobs in pieces of this size, such as 8Mi (default: in one "
    "piece)\n" REGISTRY_OPTIONS_HELP
    "\nPrints the digest and where it went. Exit codes: 0 fine, 1 it did not work, 2 wrong usage.\n";

struct push_cli {
    struct loop loop;
    struct cli_bar bar;
    const char *file, *reference;
    enum image_layout layout;
    struct image_annotation annotations[IMAGE_ANNOTATIONS_MAX];
    size_t annotation_count;
    uint64_t chunk;
    struct image image;
    bool help;
    int code;
};

static void on_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
    struct push_cli *p = arg;
    cli_bar_show(&p->bar, what, done, total);
}

static void on_done(void *arg, const char *where, struct failure *failure)
{
    struct push_cli *p = arg;
    cli_bar_end(&p->bar);
    loop_stop(&p->loop);
    if (failure->reason != NULL) {
        char *text = mem_printf("%s: %s", failure->reason, failure->text);
        cli_complain("push", text);
        mem_free(text);
        return;
    }
    printf("digest: %s\n%s\n", p->image.manifest.digest, where);
    p->code = CLI_OK;
}

static void upload(struct push_cli *p, const struct registry_table *t, const struct reference *r)
{
    loop_init(&p->loop);
    cli_bar_init(&p->bar);
    struct transfers *transfers = transfers_new(&p->loop, NULL);
    char *config = credentials_config_path(NULL);
    push_start(&(struct push_request){.loop = &p->loop,
                                      .transfers = transfers,
                                      .registries = t,
                                      .config_file = config,
                                      .reference = r,
                                      .image = &p->image,
                                      .chunk_bytes = (size_t)p->chunk,
                                      .progress = on_progress,
                                      .done = on_done,
                                      .arg = p});
    loop_run(&p->loop);
    transfers_free(transfers);
    loop_fini(&p->loop);
    mem_free(config);
}

static int run(struct push_cli *p, const struct registry_table *t)
{
    struct reference r;
    size_t n = 0;
    char *error = NULL;
    if (!reference_parse(str_of(p->reference), &r, &error)) {
        (void)cli_usage_error("push", "%s", error);
        mem_free(error);
        return CLI_USAGE;
    }
    p->code = CLI_FAILED;
    char *bytes = file_read_all(p->file, FETCH_BYTES_MAX, &n, &error);
    if (bytes == NULL || n < 8 || memcmp(bytes, "\0asm", 4) != 0) {
        char *text = mem_printf("%s: %s", p->file, error != NULL ? error : "is not a Wasm module");
        cli_complain("push", text);
        mem_free(text);
        mem_free(error);
    } else {
        image_make(&p->image, p->layout, str_span(bytes, n), p->annotations, p->annotation_count);
        upload(p, t, &r);
        image_free(&p->image);
    }
    mem_free(bytes);
    reference_free(&r);
    return p->code;
}

/* ---- options ---- */

static int take_annotation(struct push_cli *p, const char *text)
{
    struct str value = str_of(text), key = str_split(&value, '=');
    if (key.n == 0 || value.p == NULL)
        return cli_usage_error("push", "--annotation \"%s\": want KEY=VALUE", text);
    if (p->annotation_count == IMAGE_ANNOTATIONS_MAX)
        return cli_usage_error("push", "at most %d annotations", IMAGE_ANNOTATIONS_MAX);
    p->annotations[p->annotation_count++] = (struct image_annotation){key, value};
    return CLI_OK;
}

static int take_option(struct push_cli *p, struct cli_args *a)
{
    bool layout = strcmp(a->name, "layout") == 0, annotation = strcmp(a->name, "annotation") == 0;
    if (!layout && !annotation && strcmp(a->name, "chunk-size") != 0)
        return cli_usage_error("push", "no option --%s", a->name);
    const char *value = cli_value(a);
    if (value == NULL)
        return CLI_USAGE;
    if (annotation)
        return take_annotation(p, value);
    if (layout) {
        p->layout = strcmp(value, "artifact") == 0 ? IMAGE_ARTIFACT : IMAGE_TAR;
        return p->layout == IMAGE_ARTIFACT || strcmp(value, "image") == 0
                   ? CLI_OK
                   : cli_usage_error("push", "--layout \"%s\": want image or artifact", value);
    }
    if (!number_parse_bytes(str_of(value), &p->chunk) || p->chunk < CHUNK_MIN || p->chunk > FETCH_BYTES_MAX)
        return cli_usage_error("push", "--chunk-size \"%s\": want a size from 64Ki to 256Mi", value);
    return CLI_OK;
}

static int read_options(struct push_cli *p, struct registry_table *t, struct cli_args *a)
{
    while (cli_next(a)) {
        if (a->name == NULL && p->reference != NULL)
            return cli_usage_error("push", "a file and a reference, not also %s", a->value);
        if (a->name == NULL) {
            *(p->file == NULL ? &p->file : &p->reference) = a->value;
            continue;
        }
        if (strcmp(a->name, "help") == 0) {
            p->help = true;
            return CLI_OK;
        }
        int taken = registry_option(t, "push", a);
        if (taken < 0)
            taken = take_option(p, a);
        if (taken != CLI_OK)
            return taken;
    }
    return p->reference != NULL ? CLI_OK : cli_usage_error("push", "which file, and where to?");
}

int cli_push(int argc, char **argv)
{
    struct cli_args a = {.argc = argc, .argv = argv};
    struct push_cli p = {0};
    struct registry_table *t = registry_table_new();
    int code = read_options(&p, t, &a);
    if (p.help)
        fputs(help_text, stdout);
    else if (code == CLI_OK)
        code = run(&p, t);
    registry_table_free(t);
    return code;
}
