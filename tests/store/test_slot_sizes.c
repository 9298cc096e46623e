/*
 * test_slot_sizes.c - sizes of slots: little is unused, nothing is more than the room, none has too few.
 */
#include "cmocka_all.h"
#include "store/slot_sizes.h"

enum { N = 600, EXTRA_NBYTES = 5000, PAGE_NBYTES = 4096 };

static uint64_t expert_nbytes[N];

/* n_sizes of equal number, evenly from 1 MiB to 'ratio' times of it. */
static struct mb_slot_sizes choose(size_t n_sizes, unsigned ratio, uint64_t room_nbytes, size_t n_min)
{
    for (size_t i = 0; i < N; i++)
        expert_nbytes[i] = (256 + i * n_sizes / N * (ratio - 1) * 256 / n_sizes) * PAGE_NBYTES;
    const struct mb_slot_wish wish = {expert_nbytes, N, room_nbytes, EXTRA_NBYTES, n_min};
    return mb_choose_slot_sizes(&wish);
}

static uint64_t nbytes_of(const struct mb_slot_sizes *sizes, size_t *n_slots)
{
    uint64_t nbytes = 0;
    *n_slots = 0;
    for (size_t i = 0; i < sizes->n; i++) {
        nbytes += sizes->at[i].n_slots * (sizes->at[i].nbytes + EXTRA_NBYTES);
        *n_slots += sizes->at[i].n_slots;
    }
    return nbytes;
}

static uint64_t largest_unused(const struct mb_slot_sizes *sizes)
{
    uint64_t most = 0;
    for (size_t i = 0; i < N; i++) {
        uint64_t slot_nbytes = sizes->at[mb_find_slot_size(sizes, expert_nbytes[i])].nbytes;
        assert_true(slot_nbytes >= expert_nbytes[i]);
        uint64_t percent = 100 * (slot_nbytes - expert_nbytes[i]) / slot_nbytes;
        most = percent > most ? percent : most;
    }
    return most;
}

static void experts_of_one_size_have_one(void **state)
{
    (void)state;
    size_t n_slots;
    struct mb_slot_sizes sizes = choose(1, 1, UINT64_C(100) << 20, 8);
    assert_int_equal(sizes.n, 1);
    assert_true(nbytes_of(&sizes, &n_slots) <= UINT64_C(100) << 20);
    assert_int_equal(n_slots, (UINT64_C(100) << 20) / ((1 << 20) + EXTRA_NBYTES));
}

/* Each size has its share of the room, and what is left is less than one of the smallest slots. */
static void sizes_follow_experts(void **state)
{
    (void)state;
    static const struct {
        size_t n_sizes;
        unsigned ratio;
        uint64_t most_percent; /* of a slot that may be unused */
    } cases[] = {{2, 4, 0}, {6, 3, 6}, {300, 2, 6}, {300, 8, 14}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n_slots;
        const uint64_t room_nbytes = UINT64_C(500) << 20;
        struct mb_slot_sizes sizes = choose(cases[i].n_sizes, cases[i].ratio, room_nbytes, 4);
        uint64_t nbytes = nbytes_of(&sizes, &n_slots), all_nbytes = 0;
        for (size_t k = 0; k < N; k++)
            all_nbytes += expert_nbytes[k] + EXTRA_NBYTES;
        assert_in_range(sizes.n, 2, MB_SLOT_SIZES_MAX);
        assert_true(largest_unused(&sizes) <= cases[i].most_percent);
        assert_in_range(nbytes, room_nbytes - (1 << 20) - EXTRA_NBYTES, room_nbytes);
        assert_true(n_slots * 100 >=
                    N * (100 - cases[i].most_percent - 2) * (double)room_nbytes / (double)all_nbytes);
        for (size_t k = 0; k < sizes.n; k++)
            assert_true(sizes.at[k].n_slots >= 4 && sizes.at[k].n_slots <= sizes.at[k].n_experts);
    }
}

/* With less and less room there are fewer sizes, and in the end one slot. */
static void little_room_has_fewer_sizes(void **state)
{
    (void)state;
    size_t n_sizes = MB_SLOT_SIZES_MAX;
    for (uint64_t mib = 600; mib > 0; mib /= 2) {
        size_t n_slots;
        struct mb_slot_sizes sizes = choose(300, 3, mib << 20, 8);
        uint64_t nbytes = nbytes_of(&sizes, &n_slots);
        assert_true(sizes.n <= n_sizes);
        assert_true(nbytes <= mib << 20 || n_slots == 1);
        for (size_t i = 0; i < sizes.n && sizes.n > 1; i++)
            assert_true(sizes.at[i].n_slots >= (sizes.at[i].n_experts < 8 ? sizes.at[i].n_experts : 8));
        n_sizes = sizes.n;
    }
    assert_int_equal(n_sizes, 1);
}

static void all_fit_where_there_is_room(void **state)
{
    (void)state;
    size_t n_slots;
    struct mb_slot_sizes sizes = choose(300, 3, UINT64_C(1) << 40, 8);
    nbytes_of(&sizes, &n_slots);
    assert_int_equal(n_slots, N);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_of_one_size_have_one),
        cmocka_unit_test(sizes_follow_experts),
        cmocka_unit_test(little_room_has_fewer_sizes),
        cmocka_unit_test(all_fit_where_there_is_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
