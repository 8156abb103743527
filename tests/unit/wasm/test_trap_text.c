/* SPDX-License-Identifier: Apache-2.0
 *
 * Wasmtime's error texts as one line. The long ones are as the engine writes them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "wasm/trap_text.h"

static void assert_text(void (*fn)(struct strbuf *, struct str), const char *message, const char *expected)
{
    struct strbuf out = {0};
    fn(&out, str_of(message));
    char *text = strbuf_take(&out);
    assert_string_equal(text, expected);
    mem_free(text);
}

static void test_frames(void **state)
{
    (void)state;
    assert_text(trap_text_frames,
                "error while executing at wasm backtrace:\n"
                "    0:     0x2e - <unknown>!innermost\n"
                "    1:   0x1f3c - my_filter!core::panicking::panic::h0123456789abcdef\n"
                "    2: 0x123456 - <unknown>!<wasm function 12>\n"
                "    3: 0x123456 - core::backtrace::<core::handler, !>\n"
                "    4: 0x123456 - m.wasm!core::backtrace::<core::handler, !>\n"
                "\nCaused by:\n    wasm trap: wasm `unreachable` instruction executed",
                "innermost < core::panicking::panic < <wasm function 12> < core::backtrace::<core::handler, !> < "
                "core::backtrace::<core::handler, !>");
}

static void test_frames_with_lines(void **state)
{
    (void)state;
    assert_text(trap_text_frames,
                "error while executing at wasm backtrace:\n"
                "    0:     0x2e - filter::inner\n"
                "                    at /home/me/filter/src/lib.rs:12:5\n"
                "                - filter::outer\n"
                "                    at lib.rs:40\n"
                "    1:     0x40 - _start\n"
                "                    at ./main.c:3:1\n"
                "note: using the `WASMTIME_BACKTRACE_DETAILS=1` environment variable may show more\n"
                "\nCaused by:\n    wasm trap: x\n    at /not/a/frame.c:1:1",
                "filter::inner (src/lib.rs:12) < filter::outer (lib.rs:40) < _start (./main.c:3)");
}

static void test_hostile_frames(void **state)
{
    (void)state;
    assert_text(trap_text_frames,
                "error while executing at wasm backtrace:\n"
                "    0:     0x2e - m!a\x1b[2J\nsecond line of the name\n"
                "   at \n"
                "    1:     0x2e - m!\n",
                "a\\x1b[2J < m!");
    assert_text(trap_text_frames, "error while executing at wasm backtrace:\n at nowhere:1:2\n", "");
    assert_text(trap_text_frames, "no backtrace at all", "");
    struct strbuf message = {0}, out = {0};
    strbuf_addz(&message, "error while executing at wasm backtrace:\n");
    for (int i = 0; i < 100; i++) {
        strbuf_printf(&message, " %d: 0x1 - m!", i);
        for (int j = 0; j < 5000; j++)
            strbuf_addc(&message, 'x');
        strbuf_addc(&message, '\n');
    }
    trap_text_frames(&out, strbuf_str(&message));
    assert_true(out.n < 2500);
    strbuf_free(&message);
    strbuf_free(&out);
}

static void test_line(void **state)
{
    (void)state;
    assert_text(trap_text_line, "plain", "plain");
    assert_text(trap_text_line, "", "");
    assert_text(trap_text_line, "outer\n\nCaused by:\n    0: middle\n    1: inner\n       more",
                "outer: middle: inner: more");
    assert_text(
        trap_text_line,
        "error while executing at wasm backtrace:\n    0: 0x1 - m!f\n\nCaused by:\n    wasm trap: call stack exhausted",
        "wasm trap: call stack exhausted");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_frames_with_lines),
        cmocka_unit_test(test_hostile_frames),
        cmocka_unit_test(test_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
