"""Changes by lot: every place of a file where one small thing could be otherwise.

    a < b -> a <= b     a + b -> a - b     x and y -> x or y     not x -> x     3 -> 4     True -> False
    if c -> if not c    x.amax -> x.amin   a statement -> pass   dim=-1 -> dim=-2

What is said in errors, what is printed, docstrings and types are left alone: tests need not hold to the wording.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
COMPUTED = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*", ast.Pow: "*"}
COMPUTED |= {ast.BitAnd: "|", ast.BitOr: "&", ast.LShift: ">>", ast.RShift: "<<"}
CALLED = {
    "amax": "amin", "amin": "amax", "argmax": "argmin", "max": "min", "min": "max", "any": "all", "all": "any",
    "sum": "mean", "zeros_": "ones_", "ones_": "zeros_", "cos": "sin", "sin": "cos", "floor": "ceil", "ceil": "floor",
}  # fmt: skip
QUIET = ("__repr__", "__str__", "extra_repr", "__reduce__")


@dataclass(frozen=True)
class Mutation:
    """`old` at a place of a file becomes `new`."""

    file: str
    start: int
    end: int
    old: str
    new: str
    line: int
    why: str

    def apply(self, source: str) -> str:
        assert source[self.start : self.end] == self.old
        return source[: self.start] + self.new + source[self.end :]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {' '.join(self.old.split())} -> {' '.join(self.new.split())}"


def mutations(file: str, source: str) -> list[Mutation]:
    """All of them, in the order of the file.

    >>> [str(m) for m in mutations("x.py", "def f(a):\\n    return a + 1 if a < 2 else -a\\n")][:3]
    ['x.py:2: a + 1 -> a - 1', 'x.py:2: 1 -> 2', 'x.py:2: a < 2 -> (not (a < 2))']
    """
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))

    def place(line: int, column: int) -> int:
        text = source[offsets[line - 1] : offsets[line]]
        return offsets[line - 1] + len(text.encode()[:column].decode())

    found = {}
    for node, new in _changes(ast.parse(source), source):
        start, end = place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)
        old = source[start:end]
        if new != old:
            found[start, end, new] = Mutation(file, start, end, old, new, node.lineno, "by lot")
    return [found[key] for key in sorted(found)]


def _changes(tree: ast.AST, source: str) -> Iterator[tuple[ast.AST, str]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom | ast.JoinedStr):
            continue
        if isinstance(node, ast.FunctionDef) and node.name in QUIET:
            continue
        yield from _of(node, source)
        for name, child in ast.iter_fields(node):
            if name not in ("annotation", "returns", "decorator_list"):
                waiting += [
                    each for each in (child if isinstance(child, list) else [child]) if isinstance(each, ast.AST)
                ]


def _of(node: ast.AST, source: str) -> Iterator[tuple[ast.AST, str]]:
    def text(part: ast.AST) -> str:
        return ast.get_source_segment(source, part)

    match node:
        case ast.Compare(left, [op], [right]):
            yield node, f"{text(left)} {COMPARED[type(op)]} {text(right)}"
        case ast.BinOp(left, op, right) if type(op) in COMPUTED and not _is_text(left, right):
            yield node, f"{text(left)} {COMPUTED[type(op)]} {text(right)}"
        case ast.BoolOp(op, values):
            yield node, f" {'or' if isinstance(op, ast.And) else 'and'} ".join(f"({text(each)})" for each in values)
        case ast.UnaryOp(ast.Not() | ast.Invert() | ast.USub(), operand):
            yield node, text(operand)
        case ast.Constant(bool(value)):
            yield node, str(not value)
        case ast.Constant(int(value)):
            yield node, str(value + 1)
        case ast.Constant(float(value)):
            yield node, repr(value * 2 if value else 1.0)
        case ast.Attribute(value, name) if name in CALLED:
            yield node, f"{text(value)}.{CALLED[name]}"
        case ast.Name(name) if name in ("max", "min", "any", "all"):
            yield node, CALLED[name]
        case ast.If(test) | ast.IfExp(test) | ast.While(test):
            yield test, f"(not ({text(test)}))"
        case ast.Expr(ast.Call()) | ast.AugAssign():
            yield node, "pass"


def _is_text(*nodes: ast.AST) -> bool:
    return any(isinstance(node, ast.JoinedStr) or getattr(node, "value", None).__class__ is str for node in nodes)
