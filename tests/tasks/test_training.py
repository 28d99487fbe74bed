import pytest

from humanpose3d.tasks.training import _batch_seed, _passed, warm_up_cosine


def test_the_learning_rate_climbs_in_a_line_then_falls_along_a_cosine():
    rates = [warm_up_cosine(step, 4, 20) for step in range(21)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[12] == pytest.approx(0.5)
    assert all(later < earlier for earlier, later in zip(rates[4:], rates[5:], strict=False))
    assert rates[20] == pytest.approx(0.0)


def test_the_learning_rate_stays_at_nought_beyond_the_last_step():
    assert warm_up_cosine(25, 4, 20) == pytest.approx(0.0)


def test_batches_and_ranks_have_seeds_of_their_own():
    seeds = {_batch_seed(seed, batch, rank) for seed in range(5) for batch in range(50) for rank in range(4)}
    assert len(seeds) == 5 * 50 * 4


def test_an_interval_is_met_though_steps_jump_over_it():
    assert _passed(9, 12, 10) and _passed(9, 10, 10)
    assert not _passed(10, 12, 10)
