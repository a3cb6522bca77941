"""The house keeps its shape: files that fit on a desk, functions that fit on a screen, no circles, two libraries apart.

`python tests/test_house.py` prints the table.
"""

import ast
import importlib
import inspect
import sys
from pathlib import Path

import pytest

import lora
import minigpt
from minigpt import tuning

ROOT = Path(__file__).parents[1]
ROOMS = ("minigpt", "lora")
LINES, MODEL_LINES, SCRIPT_LINES, FUNCTION_LINES = 250, 350, 160, 40  # a function's without its docstring


def files(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """The modules that a file names in its imports, wherever they stand; names inside a package as its modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute here"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """A way that comes back to where it began, or an empty list.

    >>> circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}), circle({"a": {"b"}, "b": set()})
    (['b', 'c', 'b'], [])
    """
    done, way = set(), []

    def walk(name: str) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        way.append(name)
        for other in sorted(arrows[name]):
            if found := walk(other):
                return found
        done.add(way.pop())
        return []

    return next((found for name in sorted(arrows) if (found := walk(name))), [])


def code_lines(function: ast.FunctionDef) -> int:
    """Of a function, its docstring left out."""
    docstring = ast.get_docstring(function, clean=False)
    return function.end_lineno - function.lineno + 1 - (len(docstring.splitlines()) if docstring else 0)


def functions(path: Path) -> list[tuple[int, str]]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    found = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [(code_lines(node), f"{path.relative_to(ROOT)}:{node.name}") for node in found]


def test_no_file_leads_back_to_itself():
    modules = {name_of(path): path for path in files(*ROOMS)}
    packages = {name for name, path in modules.items() if path.name == "__init__.py"}  # they only name what is inside
    arrows = {name: imports(path) & modules.keys() - packages - {name} for name, path in modules.items()}
    assert sum(map(len, arrows.values())) > 300  # imports were found
    assert circle(arrows) == []


def test_a_circle_would_be_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "a"]


def test_the_two_libraries_do_not_know_each_other():
    for path in files("minigpt"):
        assert "lora" not in {name.split(".")[0] for name in imports(path)}, path
    for path in files("lora"):
        known = {name.split(".")[0] for name in imports(path)}
        assert known <= {"lora", "torch", "safetensors", *sys.stdlib_module_names}, path


@pytest.mark.parametrize("path", files(*ROOMS, "data", "bench"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_fits_on_a_desk(path):
    if "conditions" in path.parts:
        return  # tables of what the invented patients have
    limit = MODEL_LINES if path.name == "model.py" else LINES
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


@pytest.mark.parametrize("script", ["train.py", "sample.py"])
def test_a_script_is_short(script):
    assert len((ROOT / script).read_text(encoding="utf-8").splitlines()) <= SCRIPT_LINES


def test_a_function_fits_on_a_screen():
    assert max(found for path in files(*ROOMS) for found in functions(path)) < (FUNCTION_LINES + 1,)


PUBLIC = {
    "lora": lora.__all__,
    "minigpt": minigpt.__all__,
    "minigpt.generation": None,
    "minigpt.tuning.adapter": ("attach", "detach", "load", "names", "rows", "save", "use"),
    "minigpt.tuning.prefix": ("attach", "detach", "load", "names", "rows", "save", "use"),
    "minigpt.tuning.prompt": ("attach", "detach", "load", "names", "rows", "save"),
    "minigpt.tuning.mixed": ("begin", "rows", "use"),
    "minigpt.serving": ("serving",),
    "minigpt.tokenizer": ("Tokenizer",),
    "minigpt.cache": ("Cache",),
    "minigpt.chat": ("Chat",),
}


def public() -> dict[str, object]:
    found = {}
    for module, names in PUBLIC.items():
        there = importlib.import_module(module)
        found |= {f"{module}.{name}": getattr(there, name) for name in names or there.__all__}
    return {name: each for name, each in found.items() if callable(each)}


@pytest.mark.parametrize("name", public())
def test_a_public_name_says_what_it_is_what_it_takes_and_what_it_gives(name):
    each = public()[name]
    assert inspect.getdoc(each), name
    bare = inspect.unwrap(each)
    if inspect.isclass(each) and issubclass(each, Exception):
        return
    methods = [m for key, m in vars(each).items() if not key.startswith("_") and inspect.isfunction(m)]
    for function in [each.__init__, *methods] if inspect.isclass(each) else [bare]:
        signature = inspect.signature(function)
        for parameter in signature.parameters.values():
            variable = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            if parameter.name != "self" and not variable and function.__name__ != "forward":
                assert parameter.annotation is not parameter.empty, f"{name}: {function.__name__}({parameter.name})"
        if not inspect.isclass(each):
            assert signature.return_annotation is not signature.empty, f"{name} -> ?"


@pytest.mark.parametrize("name", [name for name, each in public().items() if inspect.isfunction(inspect.unwrap(each))])
def test_a_public_function_has_an_example_that_is_run(name):
    """Its own; or that of the verbs which all methods of tuning share, in minigpt/tuning/__init__.py."""
    verb = name.rpartition(".")[2]
    assert ">>> " in inspect.getdoc(public()[name]) or f"method.{verb}(" in tuning.__doc__


if __name__ == "__main__":
    for room in ROOMS:
        sizes = [len(path.read_text(encoding="utf-8").splitlines()) for path in files(room)]
        print(f"{room}: {len(sizes)} files, {sum(sizes):,} lines, the longest {max(sizes)}")
    for lines, name in sorted((found for path in files(*ROOMS) for found in functions(path)), reverse=True)[:12]:
        print(f"{lines:4}  {name}")
