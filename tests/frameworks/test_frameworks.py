"""The table of frameworks; ``nox -s frameworks`` runs them."""

from __future__ import annotations

from tests.frameworks import cells


def test_each_has_an_example_and_a_plant() -> None:
    plants = {file.stem for file in cells._PLANTS.glob("*.py")}
    assert plants == {framework.name for framework in cells.FRAMEWORKS}
    for framework in cells.FRAMEWORKS:
        assert (cells._EXAMPLES / framework.example / "train.py").is_file()
        assert (cells._EXAMPLES / framework.example / "model_config.yaml").is_file()
