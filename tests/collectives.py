"""What a compiled program sends between devices, counted as it is executed."""

import re
from collections import Counter

KINDS = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
CALLED = re.compile(r"(?:body|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


def collectives(compiled):
    """`{(kind, inside a loop?): (executions, bytes)}` of `jax.jit(f).lower(...).compile()`.

    A loop of unknown length counts as one turn. Bytes are those of the results on one device.
    """
    computations, entry, name = {}, None, None
    for line in compiled.as_text().splitlines():
        if start := COMPUTATION.match(line):
            name = start[2]
            computations[name] = []
            entry = name if start[1] else entry
        elif name is not None:
            computations[name].append(line)
    times, sent = Counter(), Counter()

    def walk(name, trips, inside):
        for line in computations[name]:
            if found := COLLECTIVE.search(line):
                times[found[2], inside] += trips
                sent[found[2], inside] += trips * _bytes(found[1])
            is_loop = " while(" in line
            turns = int(TRIPS.search(line)[1]) if is_loop and TRIPS.search(line) else 1
            called = CALLED.findall(line)
            for branches in BRANCHES.findall(line):
                called += re.findall(r"[\w.\-]+", branches)
            for other in called:
                walk(other, trips * turns, inside or is_loop)

    walk(entry, 1, False)
    return {kind: (times[kind], sent[kind]) for kind in sorted(times)}


def _bytes(shapes):
    total = 0
    for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
        size = BYTES[dtype]
        for dim in filter(None, dims.split(",")):
            size *= int(dim)
        total += size
    return total
