"""The rows, one file for each kind of work. They import NumPy alone: a process has one library."""

from benchmarks.row import Row
from benchmarks.rows import (
    adam,
    call,
    cnn,
    compilation,
    decoder,
    digits,
    fit,
    importing,
    mlp,
    recurrent,
    roof,
    sweep,
    tiny,
    transformer,
)

ROWS: dict[str, Row] = {
    **roof.ROWS,
    **tiny.ROWS,
    **mlp.ROWS,
    **cnn.ROWS,
    **recurrent.ROWS,
    **transformer.ROWS,
    **compilation.ROWS,
    **adam.ROWS,
    **call.ROWS,
    **digits.ROWS,
    **importing.ROWS,
    **fit.ROWS,
    **sweep.ROWS,
    **decoder.ROWS,
}


def chosen(names: list[str]) -> list[str]:
    """The names of the rows that begin with one of `names`; all of them for none."""
    for name in names:
        if not any(row.startswith(name) for row in ROWS):
            raise SystemExit(f"no row is called {name!r}; there are {', '.join(ROWS)}")
    return [row for row in ROWS if not names or row.startswith(tuple(names))]
