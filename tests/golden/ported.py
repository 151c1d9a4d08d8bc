"""What the port dumps of the cases of a bundle, and what a check says to it."""

from functools import cache

from llama_ref.checkpoint import synthetic, write_safetensors
from llama_ref.golden import check
from tests.golden import port


@cache
def weights_of(spec):
    """Return the tensors of a model by Hugging Face name."""
    return dict(synthetic.checkpoint(spec.config, spec.seed, spec.variant))


def ported(bundle, mistake=None, dtype="float32", keep=lambda case, tap: True):
    """Run every case of a bundle in the port, those of one batch together; return `case/tap`."""
    found = {}
    for case in bundle.cases:
        if case.name not in found:
            spec = bundle.spec(case)
            batch = [one for one in bundle.cases if one is case or one.batch == case.batch]
            together = batch if case.batch else [case]
            found |= port.run_batch(spec.config, weights_of(spec), together, dtype, mistake)
    return {
        f"{case}/{tap}": array
        for case, taps in found.items()
        for tap, array in taps.items()
        if keep(case, tap)
    }


def checked(bundle, tensors, folder, **options):
    """Write a candidate and check it."""
    path = folder / "candidate.safetensors"
    write_safetensors(path, tensors)
    return check(bundle, path, **options)


def row_of(report, case, tap):
    """Return the row of a tap."""
    return next(row for row in report.rows if (row.case, row.tap) == (case, tap))
