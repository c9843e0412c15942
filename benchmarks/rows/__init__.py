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
    layers,
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
    **layers.ROWS,
    **digits.ROWS,
    **importing.ROWS,
    **fit.ROWS,
    **sweep.ROWS,
    **decoder.ROWS,
}


def chosen(names: list[str]) -> list[str]:
    """The rows with these names, or whose names begin with them; all rows for none."""

    def matches(row: str, name: str) -> bool:
        return row == name if name in ROWS else row.startswith(name)

    for name in names:
        if not any(matches(row, name) for row in ROWS):
            raise SystemExit(f"no row is called {name!r}; there are {', '.join(ROWS)}")
    return [row for row in ROWS if not names or any(matches(row, name) for name in names)]
