"""The checks of generators: those that keep the contract pass, and each that breaks it is found with its cause."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import discs
import faulty
import pebbles
import pytest
import wayward
from cases import slow

from formulavision import Generator, plugins
from formulavision.testing import check_generator, run_checks


def line_at_fault(generator: type[Generator]) -> str:
    """``line N`` of the line that is marked in the class; empty without one."""
    lines, first = inspect.getsourcelines(generator)
    return next((f"line {first + place})" for place, line in enumerate(lines) if "# here" in line), "")


@pytest.mark.parametrize(
    "generator",
    [faulty.Squares, faulty.Stacked, faulty.Masked, faulty.MaskedBatch, faulty.Heap, discs.Discs],
)
def test_a_generator_that_keeps_the_contract_passes(generator: type[Generator]) -> None:
    before = dict(plugins().generators)
    assert check_generator(generator) == []
    assert plugins().generators == before


@pytest.mark.parametrize("name", ["coins", *slow("rings", "ribbons")])
def test_the_generators_of_the_tutorial_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "third_party" / name)
    module = importlib.import_module(f"formulavision_{name}")
    assert check_generator(getattr(module, name.capitalize())) == []


def test_a_generator_of_scenes_alone_passes() -> None:
    assert check_generator(pebbles.Pebbles, params={"objects": 4}) == []


def test_a_generator_may_refuse_colour_and_the_check_says_so() -> None:
    checks = list(run_checks(faulty.Refusing))
    assert [check.problems for check in checks if check.problems] == []
    assert "not in colour: canvas.channels: 3 is not allowed: only in gray" in checks[0].notes


@pytest.mark.parametrize("generator", faulty.FAULTS, ids=lambda generator: generator.__name__)
def test_a_generator_that_breaks_the_contract_is_found_with_cause_and_line(generator: type[Generator]) -> None:
    title, cause = faulty.FAULTS[generator]
    problems = next(check.problems for check in run_checks(generator) if title in check.title)
    assert all("\n" not in problem for problem in problems)
    found = [problem for problem in problems if cause in problem]
    assert found, problems
    assert any(line_at_fault(generator) in problem for problem in found), found


CAUSES = {
    "counting": "after other images",
    "remembering": "after other images",
    "tossing": "global random numbers are drawn",
    "looking-at-the-clock": "time.perf_counter_ns() is called",
    "counting-in-its-module": "each time",
    "hashing": "hash() of a text",
}


@pytest.mark.parametrize("generator", wayward.WAYWARD, ids=lambda generator: generator.name)
def test_generators_that_verify_finds_are_found_before_a_store_is_written(generator: type[Generator]) -> None:
    problems = (problem for check in run_checks(generator) for problem in check.problems)
    assert "wayward.py, line " in next(problem for problem in problems if CAUSES[generator.name] in problem)
