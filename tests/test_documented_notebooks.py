"""The notebooks of the documents run from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_results(notebook: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbclient comes with the extra docs")
    book = nbformat.read(notebook, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert code and all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.slow  # they train
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient comes with the extra docs")
    nbformat = pytest.importorskip("nbformat", reason="nbclient comes with the extra docs")
    book = nbformat.read(notebook, as_version=4)
    nbclient.NotebookClient(book, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = [text for cell in book.cells if cell.cell_type == "code" for text in cell.outputs]
    assert not [text for text in printed if text.output_type == "error"]
    assert any("image/png" in text.get("data", {}) for text in printed)
