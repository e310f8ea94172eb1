"""YAML 1.2: what it says is what is read, and nothing that it holds costs more than seconds or ends in a traceback."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml as of_version_1_1
from cases import slow
from pydantic import Field

from formulavision import Recipe, compare, generate
from formulavision.comparison import ComparisonSettings
from formulavision.data.downstream import DownstreamSettings
from formulavision.util.config import Config, apply_settings, dump_yaml, load_yaml, parse, parse_yaml
from formulavision.util.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1e3", 1000.0),
        ("-2.5E+2", -250.0),
        ("+.5e1", 5.0),
        ("1.0e-3", 0.001),
        ("0.5", 0.5),
        ("5.", 5.0),
        ("12", 12),
        ("-12", -12),
        ("010", 10),
        ("0o17", 15),
        ("0x1f", 31),
        ("true", True),
        ("False", False),
        ("~", None),
        ("1e", "1e"),
        ("e3", "e3"),
        ("1e-3x", "1e-3x"),
        ("n01440764", "n01440764"),
        ("'1e-3'", "1e-3"),
        *((word, word) for word in ("on", "off", "yes", "No", "y", "N", "tRuE")),
        *(
            (word, word)
            for word in ("1:30", "0b11", "1_000", "_", "=", "2001-01-01", "2001-01-01 10:00:00", "12:30:45")
        ),
    ],
)
def test_plain_text_is_read_by_the_core_schema_of_yaml_1_2(tmp_path: Path, text: str, value: Any) -> None:
    (tmp_path / "file.yaml").write_text(f"rates: [{text}]")
    for found in (load_yaml(tmp_path / "file.yaml")["rates"], apply_settings({}, [f"rates=[{text}]"])["rates"]):
        assert found == [value] and type(found[0]) is type(value)


def test_a_key_is_text_as_it_is_written() -> None:
    assert parse_yaml("on: 1\nno: 2\n12: 3\nnull: 4\ntrue: 5\n1e3: 6\n~: 7") == {
        "on": 1, "no": 2, "12": 3, "null": 4, "true": 5, "1e3": 6, "~": 7,
    }  # fmt: skip
    assert parse_yaml("a: &a {1: x, b: y}\nc: {<<: *a, 1: z}") == {"a": {"1": "x", "b": "y"}, "c": {"1": "z", "b": "y"}}


WORDS = ["1e3", "1e", "12", "yes", "on", "off", "y", "~", "1e-3", "0o17", "010", "1:30", "1_000", "2001-01-01", "=",
         "<<", ".5", "0x1", "", " a", "a: b", "#", "- a", "é", "a\nb", "'", "null", "True", ".inf", "nan",
         "e\x85Y", "\x85", "\u2028a"]  # fmt: skip


def test_what_is_written_is_read_as_it_was_by_readers_of_either_version() -> None:
    data = {
        "rates": [1e-3, 1e-7, 1e22, -2.5e-300, 3.0, 2, -4, 2**62],
        "words": WORDS,
        "nested": {word or "empty": {"none": None, "flag": True, "list": [[], {}]} for word in WORDS},
        "long": "word " * 100,
    }
    text = dump_yaml(data)
    assert parse_yaml(text) == data
    assert of_version_1_1.safe_load(text) == data
    assert list(parse_yaml(text)) == list(data)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_files_that_were_written_with_pyyaml_read_the_same(path: Path) -> None:
    data = load_yaml(path)
    text = of_version_1_1.safe_dump(data, sort_keys=False, allow_unicode=True)
    assert parse_yaml(text) == of_version_1_1.safe_load(text) == data
    assert dump_yaml(data) == text


BOMB = "a0: &a0 [1, 2]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "expands to more than 100,000 values"),
        (MERGED, "expands to more than 100,000 values"),
        *slow(("a: [" + "1," * 100_001 + "1]", "expands to more than 100,000 values")),
        ("a: " + "[" * 500 + "]" * 500, "nested more than 100 deep"),
        ("a: " + "{b: " * 500 + "1" + "}" * 500, "nested more than 100 deep"),
        ("".join(f"{' ' * i}a:\n" for i in range(500)), "nested more than 100 deep"),
        ("- " * 400_000, "nested more than 100 deep"),
        ("a: &a [1, *a]", "*a stands inside of what it names"),
        ("&a {b: {c: *a}}", "*a stands inside of what it names"),
        ("a: *b", "undefined alias"),
        ("a: &a 1\nb: &a 2", "&a stands there twice"),
        ("a: 1\nb: 2\na: 3", "line 3: found duplicate key"),
        ("a: {1: 1, '1': 2}", "duplicate key"),
        ("seed: " + "9" * 5000, "more than 30 digits"),
        ("seed: 0x" + "f" * 5000, "more than 30 digits"),
        ("seed: 1e999", "1e999 is not a finite number"),
        ("seed: .nan", ".nan is not a finite number"),
        ("seed: -.INF", "-.INF is not a finite number"),
        ("generator: !!int ''", "the tag tag:yaml.org,2002:int is not allowed"),
        ("generator: !!python/object/apply:os.system [ls]", "python/object/apply:os.system is not allowed"),
        ("generator: !!binary '='", "is not allowed"),
        ("a: !x {}", "the tag !x is not allowed"),
        ("? [1, 2]\n: 3", "a key must be text"),
        ("? {a: 1}\n: 3", "a key must be text"),
        ("<<: 3", "expected a mapping"),
        ("a: 1\n---\nb: 2", "another document"),
        ("%YAML 3.0\n---\na: 1", "incompatible"),
        ('a: "\\0"', "a character that no text has"),
        ('a: "\\ud800"', "a character that no text has"),
        ('a: "\\UFFFFFFFF"', "is not YAML"),
        ("a: \x07", "is not YAML"),
        ("a: [1, 2", "line 1"),
        ("[1, 2]", "must hold settings, NAME: VALUE, and holds a list"),
        ("", "must hold settings, NAME: VALUE, and holds nothing"),
        ("# " + "x" * 1_000_000, "is larger than 1,000,000 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line_and_in_seconds(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    started = time.process_time()
    for load in (load_yaml, Recipe.load, ComparisonSettings.load)[: 3 if len(text) < 10_000 else 1]:
        with pytest.raises(ConfigError, match=re.escape(told)) as refused:
            load(path)
        assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)
        assert len(str(refused.value)) < 500
    assert time.process_time() - started < 20


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    for path, told in [
        (Path("/dev/zero"), "is not a file"),
        (tmp_path / "pipe", "is not a file"),
        (tmp_path, "is not a file but a folder"),
        (tmp_path / "none", "No such file"),
        (tmp_path / "latin.yaml", "is not text"),
    ]:
        with pytest.raises(ConfigError, match=f"{path}: {told}"):
            load_yaml(path)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("int=1", "int: there is no such setting"),
        ("str=1", "str: there is no such setting"),
        ("list[int]=1", "list[int]: there is no such setting"),
        ("generator.int=1", "generator.int: there is no such setting"),
        ("model_config=1", "model_config: there is no such setting"),
        ("__class__.x=1", "__class__: there is no such setting"),
        ("generator.name.x=1", "'name' holds a plain value"),
        ("seed.x.y=1", "give all of its settings, as in --set 'seed={..., x: {y: 1}}'"),
        ("seed.x=1", "'seed' holds a plain value"),
        ("=1", "must read path.to.key=value"),
        (".=1", "must read path.to.key=value"),
        ("canvas..size=1", "must read path.to.key=value"),
        ("seed", "must read path.to.key=value"),
        ("seed=[", "the value is not YAML"),
        ("seed=!!int ''", "the tag tag:yaml.org,2002:int is not allowed"),
        ("seed=" + "9" * 5000, "more than 30 digits"),
        ("seed=.inf", "is not a finite number"),
        ("seed=on", "seed: 'on' is not allowed"),
        ("seed={a: 1}", "seed: {'a': 1} is not allowed"),
        ("categories=[1]", "categories: [1] is not allowed"),
        ("categories=yes", "categories: 'yes' is not allowed: must be a number, or a mapping with count or folder"),
        ("categories.folder=~nobody-has-this-name/x", "folder: ~nobody-has-this-name/x: there is no such user"),
        ("seed=", "seed: None is not allowed"),
        ("categories.folder=/data/set #2", "'#' begins a comment: put text in quotes"),
        ("categories.folder=#2", "'#' begins a comment"),
        ("categories.folder='/data/set #2' # the second", "'#' begins a comment"),
        ("categories={folder: /data}#2", "'#' begins a comment"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_its_path(setting: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        Recipe.from_dict({"generator": {"name": "perlin"}, "seed": 1}, [setting])


@pytest.mark.parametrize("number", ["2", "-1", "x", "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_one_of_a_list_has_a_number_in_plain_digits(number: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"'{number}' holds a plain value")):
        apply_settings({"parts": [{}, {}]}, [f"parts.{number}.seed=1"])


@pytest.mark.parametrize("text", ["a#b", "'a #b'", '"a #b"', '["a #b", c#d]', "{a: ' #', b: '#'}"])
def test_a_setting_may_hold_the_sign_of_a_comment_in_its_text(text: str) -> None:
    assert "#" in str(apply_settings({}, [f"words={text}"])["words"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["seed=1", "seed=2"], "seed: is given twice: 1 is replaced by another value: give one of them"),
        (["seed=1", "seed=true"], "seed: is given twice: 1"),
        (["canvas.size=8", "canvas={padding: 1}"], "canvas.size: is given twice: 8"),
        (["canvas={size: 8, padding: 1}", "canvas.size=9"], "canvas: is given twice: {'size': 8, 'padding': 1}"),
        (["parts.1.seed=1", "parts=[{seed: 2}]"], "parts.1.seed: is given twice: 1"),
    ],
)
def test_a_setting_that_another_one_would_replace_is_refused(settings: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(told)}"):
        apply_settings({"seed": 0, "canvas": {"size": 4}, "parts": [{}, {}]}, settings)


def test_settings_that_agree_are_laid_over_the_file() -> None:
    data: dict[str, Any] = {"seed": 0, "canvas": {"size": 4, "padding": 2}}
    assert apply_settings(data, ["seed=1", "seed=0x1", "canvas.size=8"]) == {
        **data,
        "seed": 1,
        "canvas": {**data["canvas"], "size": 8},
    }
    assert apply_settings(data, ["canvas={size: 8}", "canvas.size=8", "canvas.padding=1"])["canvas"] == {
        "size": 8,
        "padding": 1,
    }
    assert apply_settings({}, ["parts=[{seed: 1}]", "parts.0.size=2"]) == {"parts": [{"seed": 1, "size": 2}]}


def test_numbers_and_nestings_that_no_text_holds_are_refused_too() -> None:
    nested: list[Any] = []
    for _ in range(10_000):
        nested = [nested]
    for value in (10**5000, float("nan"), float("inf"), {1: 2}, {None: {}}, b"x", object()):
        with pytest.raises(ConfigError):
            Recipe.from_dict({"generator": {"name": "perlin"}, "seed": value})

    class Open(Config):
        choice: int | str = 1

    class Named(Config):
        int: bool = True

    with pytest.raises(ConfigError, match=r"^choice: "):
        parse(Open, {"choice": nested})
    with pytest.raises(ConfigError, match=r"^int: 3 is not allowed"):
        parse(Named, {"int": 3})


def test_text_and_booleans_are_no_numbers_in_lists_and_mappings_either() -> None:
    class Nested(Config):
        rows: tuple[tuple[float, ...], ...] | None = None
        reach: list[Annotated[float, Field(gt=0)]] | None = None
        paper: dict[str, dict[str, float]] | None = None
        pair: tuple[str, int] = ("a", 1)
        words: list[str] | None = None
        either: list[int | str] | None = None

    right = {"rows": [[1, 0.5], ()], "reach": [1], "paper": {"a": {"b": 1}}, "pair": ["1", 2], "words": ["1"],
             "either": [1, "a"]}  # fmt: skip
    assert parse(Nested, right).model_dump(mode="json") == {**right, "rows": [[1, 0.5], []]}
    for wrong in ({"rows": [[1], ["2"]]}, {"reach": [0.5, True]}, {"paper": {"a": {"b": "1"}}}, {"pair": ["1", "2"]}):
        (name,) = wrong
        with pytest.raises(
            ConfigError, match=f"^{name}: ('1'|'2'|True) is not allowed: must be a valid (number|integer)$"
        ):
            parse(Nested, wrong)


@pytest.mark.parametrize("seed", range(6))
def test_a_mutated_file_either_loads_or_is_refused_in_under_three_seconds(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "mutated.yaml"
    for trial in range(60):
        original = chance.choice(CONFIGS).read_bytes()
        path.write_bytes(mutated(original, chance))
        load = ComparisonSettings.load if b"\narms:" in original else Recipe.load
        started = time.process_time()
        try:
            load(path)
        except ConfigError as error:
            assert "\n" not in str(error), (seed, trial)
        except Exception as error:
            raise AssertionError(f"seed {seed}, trial {trial}: {path.read_bytes()!r}") from error
        assert time.process_time() - started < 3, (seed, trial)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """One to three changes as editors, disks and people make them."""
    for _ in range(chance.randint(1, 3)):
        lines = content.splitlines(keepends=True) or [b""]
        i, j = chance.randrange(len(lines)), chance.randrange(len(lines))
        at = chance.randrange(len(content) or 1)
        kind = chance.randrange(9)
        if kind == 0:
            content = content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at] + content[at + chance.randint(1, 40) :]
        elif kind == 2:
            lines[i], lines[j] = lines[j], lines[i]
            content = b"".join(lines)
        elif kind == 3:
            content = b"".join([*lines[:i], lines[i], *lines[i:]])
        elif kind == 4:
            content = content[:at] + b"[" * chance.choice((1, 50, 500)) + content[at:]
        elif kind == 5:
            content = content[:at]
        elif kind == 6:
            junk = [
                b"&a ",
                b"*a",
                b"!!int ",
                b"<<: *recipe",
                b"- ",
                b"? ",
                b"\t",
                b"{",
                b": ",
                b'"',
                b"|\n",
                b"~",
                b"\0",
            ]
            content = content[:at] + chance.choice(junk) + content[at:]
        elif kind == 7:
            value = [b"9" * 400, b"-1", b"1e400", b"yes", b"[]", b"{}", b"''", b"null", b"~root/x", b"1" * 29, b"0.5"]
            content = re.sub(rb": [^\n{]*$", b": " + chance.choice(value), lines[i].rstrip(b"\n"))
            content = b"".join([*lines[:i], content + b"\n", *lines[i + 1 :]])
        else:
            indent = b" " * chance.randint(1, 4)
            content = b"".join([*lines[:i], indent + lines[i], *lines[i + 1 :]])
    return content


@pytest.mark.parametrize(
    "use",
    [
        lambda name: Recipe.from_dict({"generator": "ifs", "categories": {"folder": name}}),
        lambda name: DownstreamSettings.from_text(name),
        lambda name: DownstreamSettings.from_text(f"folder:{name}"),
        lambda name: generate(name, "never-written"),
        lambda name: compare(name, out="never-written"),
    ],
    ids=["categories", "dataset", "folder", "recipe", "comparison"],
)
def test_a_name_that_is_too_long_for_a_path_is_told_in_one_line(use: Callable[[str], object]) -> None:
    with pytest.raises(ConfigError, match="File name too long") as caught:
        use("x" * 5000)
    assert "\n" not in str(caught.value)


def test_names_with_dots_are_found() -> None:
    data: dict[str, Any] = {
        "arms": {"ifs-0.7": {"seed": 1}, "ifs-0": {"7": {"seed": 2}}},
        "sweep": {"generator.dots": [1]},
    }
    changed = apply_settings(data, ["arms.ifs-0.7.seed=3", "sweep.generator.dots=[2]"])
    assert changed == {"arms": {"ifs-0.7": {"seed": 3}, "ifs-0": {"7": {"seed": 2}}}, "sweep": {"generator.dots": [2]}}
    del data["arms"]["ifs-0.7"]
    assert apply_settings(data, ["arms.ifs-0.7.seed=3"])["arms"] == {"ifs-0": {"7": {"seed": 3}}}
    assert apply_settings({"arms": {"a.b": {}, "a": {}}}, ["arms.a.b=null"], null_removes=True) == {"arms": {"a": {}}}
    for path in ("arms.", ".arms", "arms..a", ""):
        with pytest.raises(ConfigError, match=r"must read path.to.key=value"):
            apply_settings(data, [f"{path}=1"])
