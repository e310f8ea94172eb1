"""Tests of significance, against figures that others published."""

from __future__ import annotations

import pytest
from scipy.stats import ttest_rel

from formulavision.comparison.significance import holm, paired_t, rank_correlation

# Student's sleep data (1908), as R's documentation of t.test has it: hours that two drugs gained, of ten patients.
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_the_paired_t_test_is_students_own() -> None:
    assert paired_t(DRUG_2, DRUG_1) == pytest.approx(0.002833, abs=5e-7)
    assert paired_t(DRUG_1, DRUG_2) == pytest.approx(ttest_rel(DRUG_1, DRUG_2).pvalue)


def test_no_difference_at_all_is_no_evidence() -> None:
    assert paired_t([0.5, 0.6], [0.5, 0.6]) == 1.0


def test_differences_that_are_all_alike_have_no_variance_to_test_with() -> None:
    assert paired_t([0.5, 0.6, 0.7], [0.4, 0.5, 0.6]) is None


def test_one_pair_is_not_tested() -> None:
    assert paired_t([0.5], [0.4]) is None


def test_holms_correction_is_that_of_r() -> None:
    # p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_rank_correlation_is_spearmans() -> None:
    # Wikipedia's worked example, "Spearman's rank correlation coefficient": IQ and hours of television, -29/165.
    iq = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert rank_correlation(iq, hours) == pytest.approx(-29 / 165)


def test_two_pairs_or_one_value_have_no_order_to_compare() -> None:
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
