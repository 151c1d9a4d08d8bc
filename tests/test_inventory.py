"""The table of `llama-ref inspect` over names that no Llama has: as many, and as odd, as may be."""

from llama_ref.cli.inventory import Stored, rows


def stored(names):
    """Tensors of these names, alike in everything else."""
    return [Stored(name, "float32", (2,), 8, ("x",)) for name in names]


def table(names):
    """The first cells of the rows, layers folded."""
    return [row[0] for row in rows(stored(names), ["x"], fold=True)]


def test_a_layer_of_a_hundred_thousand_names_is_one_pass():
    """Each tensor is looked at a few times, however many there are in its layer."""
    n = 100_000
    assert len(table(f"model.layers.0.x{i}" for i in range(n))) == n + 1
    alternating = [f"model.layers.{layer}.x{i}" for i in range(n // 2) for layer in (0, 1)]
    assert len(table(alternating)) == n  # two rows for each pair of layers 0 and 1


def test_only_the_numbers_that_llamas_have_are_layers():
    """Other digits, and zeros in front, are shown as they are written and fold with nothing."""
    odd = [f"model.layers.{number}.w" for number in ("00", "٠", "1٢", "+1", "10000", "")]
    assert table(["model.layers.0.w", *odd]) == ["model.layers.0", "  w", *odd]
