"""One process at a time computes a stage."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from formulavision.comparison.claims import claimed

HOLD = """
import sys
from pathlib import Path
from formulavision.comparison.claims import claimed
with claimed(Path(sys.argv[1]), print):
    print("held", flush=True)
    sys.stdin.read()
"""


def unheard(holder: str) -> None:
    raise AssertionError(f"held by {holder}")


def test_what_nobody_holds_is_had_at_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    lock = tmp_path / "stages/one.lock"
    for _ in range(2):
        with claimed(lock, unheard):
            assert lock.is_file()
        assert list(lock.parent.iterdir()) == []


def test_the_second_waits_until_the_first_is_done(tmp_path: Path) -> None:
    lock, waits, order = tmp_path / "one.lock", threading.Event(), []

    def second() -> None:
        with claimed(lock, lambda holder: (order.append(holder), waits.set())):
            order.append("second")

    with claimed(lock, unheard):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        order.append("first")
    thread.join(10)
    assert order[0].startswith("process ")
    assert order[1:] == ["first", "second"]
    assert not lock.exists()


def test_of_many_that_wait_one_has_it_at_a_time(tmp_path: Path) -> None:
    lock, inside, most = tmp_path / "one.lock", [], []

    def work() -> None:
        for _ in range(20):
            with claimed(lock, lambda holder: None):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1] * 120


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "one.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == b"held\n"

    class HeldError(Exception):
        pass

    def refuse(name: str) -> None:
        raise HeldError(name)

    with pytest.raises(HeldError, match=f"process {holder.pid} on "), claimed(lock, refuse):
        pass
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    with claimed(lock, unheard):
        pass
