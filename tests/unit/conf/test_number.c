/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers as Go prints them (expected texts were made by Go's encoding/json and strconv), durations, sizes, times,
 * base64.
 */
#include "conf_test.h"

#include "conf/number.h"

static void test_json_numbers(void **state)
{
    (void)state;
    static const struct {
        double v;
        const char *text;
    } cases[] = {
        {0x1p-44, "5.684341886080802e-14"},
        {0x1p-1074, "5e-324"},
        {0x1.fffffffffffffp+1023, "1.7976931348623157e+308"},
        {0x1p+53, "9007199254740992"},
        {0x1.b1ae4d6e2ef5p+69, "1e+21"},
        {0x1.5af1d78b58c4p+66, "100000000000000000000"},
        {0x1.ac53a7e04bcdap+66, "123456789012345680000"},
        {0x1.999999999999ap-04, "0.1"},
        {0x1.0c6f7a0b5ed8dp-20, "0.000001"},
        {0x1.ad7f29abcaf48p-24, "1e-7"},
        {0x1.421f5f40d8376p-23, "1.5e-7"},
        {0x1.b7cdfd9d7bdbbp-34, "1e-10"},
        {-0.0, "-0"},
        {0, "0"},
        {1, "1"},
        {-1, "-1"},
        {1.10, "1.1"},
        {5000000000.0, "5000000000"},
        {0x1p-1022, "2.2250738585072014e-308"},
        {4.35, "4.35"},
        {0.3, "0.3"},
        {1 / 3.0, "0.3333333333333333"},
        {1e23, "1e+23"},
        {0x1p-20, "9.5367431640625e-7"},
        {0x1p-24, "5.960464477539063e-8"},
        {0x1p+100, "1.2676506002282294e+30"},
        {8.41e21, "8.41e+21"},
        {-1.5e-9, "-1.5e-9"},
        {123.456, "123.456"},
        {100, "100"},
        {1e20 + 20000, "100000000000000020000"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf b = {0};
        number_write_json(&b, cases[i].v);
        char *z = strbuf_take(&b);
        assert_string_equal(z, cases[i].text);
        mem_free(z);
    }
}

static void test_key_numbers(void **state)
{
    (void)state;
    static const struct {
        double v;
        const char *text;
    } cases[] = {{1.5, "1.5"},       {1234567, "1.234567e+06"},  {100000, "100000"},
                 {999999, "999999"}, {1000000, "1e+06"},         {0.0001, "0.0001"},
                 {0.00001, "1e-05"}, {1.123456789, "1.1234568"}, {16777217, "1.6777216e+07"},
                 {1e300, ".inf"},    {-1e300, "-.inf"},          {0, "0"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf b = {0};
        number_write_key(&b, cases[i].v);
        char *z = strbuf_take(&b);
        assert_string_equal(z, cases[i].text);
        mem_free(z);
    }
}

static void test_durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms; /* -1: refused */
        const char *back;
    } cases[] = {
        {"10s", 10000, "10s"},
        {"1h30m", 5400000, "1h30m"},
        {"500ms", 500, "500ms"},
        {"0s", 0, "0s"},
        {"0ms", 0, "0s"},
        {"1h2m3s4ms", 3723004, "1h2m3s4ms"},
        {"90s", 90000, "1m30s"},
        {"99999h", 359996400000, "99999h"},
        {"", -1, ""},
        {"10", -1, ""},
        {"s", -1, ""},
        {"1.5s", -1, ""},
        {"-1s", -1, ""},
        {"100000s", -1, ""},
        {"1s1s1s1s1s", -1, ""},
        {"1d", -1, ""},
        {"10 s", -1, ""},
        {"1us", -1, ""},
        {"10S", -1, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t ms = -1;
        assert_int_equal(number_parse_duration(str_of(cases[i].text), &ms), cases[i].ms >= 0);
        if (cases[i].ms < 0)
            continue;
        assert_int_equal(ms, cases[i].ms);
        struct strbuf b = {0};
        number_write_duration(&b, ms);
        char *z = strbuf_take(&b);
        assert_string_equal(z, cases[i].back);
        mem_free(z);
    }
}

static void test_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        uint64_t bytes;
        const char *back;
    } cases[] = {{"64Mi", true, 64ull << 20, "64Mi"},
                 {"1Ki", true, 1024, "1Ki"},
                 {"4Gi", true, 4ull << 30, "4Gi"},
                 {"5", true, 5, "5"},
                 {"0", true, 0, "0"},
                 {"2k", true, 2000, "2000"},
                 {"1M", true, 1000000, "1000000"},
                 {"1G", true, 1000000000, "1000000000"},
                 {"18446744073709551615", true, UINT64_MAX, "18446744073709551615"},
                 {"18446744073709551616", false, 0, ""},
                 {"17179869184Gi", false, 0, ""},
                 {"", false, 0, ""},
                 {"Mi", false, 0, ""},
                 {"-1Mi", false, 0, ""},
                 {"1.5Mi", false, 0, ""},
                 {"1 Mi", false, 0, ""},
                 {"64MB", false, 0, ""}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t bytes = 7;
        assert_int_equal(number_parse_bytes(str_of(cases[i].text), &bytes), cases[i].ok);
        if (!cases[i].ok)
            continue;
        assert_true(bytes == cases[i].bytes);
        struct strbuf b = {0};
        number_write_bytes(&b, bytes);
        char *z = strbuf_take(&b);
        assert_string_equal(z, cases[i].back);
        mem_free(z);
    }
}

static void test_times(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        int64_t seconds;
    } cases[] = {{"1970-01-01T00:00:00Z", true, 0},
                 {"2026-11-23T15:00:00Z", true, 1795446000},
                 {"2000-02-29T12:34:56Z", true, 951827696},
                 {"2026-11-23T15:00:00.123456Z", true, 1795446000},
                 {"2026-11-23T16:00:00+01:00", true, 1795446000},
                 {"2026-11-23T14:30:00-00:30", true, 1795446000},
                 {"1969-12-31T23:59:59Z", true, -1},
                 {"2023-02-29T00:00:00Z", false, 0},
                 {"2026-13-01T00:00:00Z", false, 0},
                 {"2026-11-23", false, 0},
                 {"2026-11-23 15:00:00Z", false, 0},
                 {"2026-11-23T15:00:00", false, 0},
                 {"2026-11-23T25:00:00Z", false, 0},
                 {"2026-11-23T15:00:00.Z", false, 0},
                 {"2026-11-23T15:00:00Zx", false, 0},
                 {"", false, 0}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t seconds = 7;
        assert_int_equal(number_parse_time(str_of(cases[i].text), &seconds), cases[i].ok);
        if (cases[i].ok)
            assert_int_equal(seconds, cases[i].seconds);
    }
}

static void test_base64(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        const char *bytes;
        size_t n; /* on failure: where */
    } cases[] = {{"", true, "", 0},        {"Zg==", true, "f", 1},        {"Zm8=", true, "fo", 2},
                 {"Zm9v", true, "foo", 3}, {"Zm9vYg==", true, "foob", 4}, {"Zm9v\nYmFy\n", true, "foobar", 6},
                 {"Zg", false, "", 2},     {"Z", false, "", 1},           {"Zg=", false, "", 3},
                 {"Zm9v!", false, "", 4},  {"Zg==Zg==", false, "", 4},    {"====", false, "", 0},
                 {"Zm9-", false, "", 3},   {"Z===", false, "", 1}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t out[32];
        size_t n = 99;
        assert_int_equal(number_parse_base64(str_of(cases[i].text), out, &n), cases[i].ok);
        assert_int_equal(n, cases[i].n);
        if (cases[i].ok)
            assert_memory_equal(out, cases[i].bytes, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_numbers), cmocka_unit_test(test_key_numbers), cmocka_unit_test(test_durations),
        cmocka_unit_test(test_bytes),        cmocka_unit_test(test_times),       cmocka_unit_test(test_base64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
